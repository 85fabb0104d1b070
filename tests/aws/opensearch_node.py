"""A real OpenSearch node with the k-NN plugin: one that runs already, a container, or one assembled with Maven.

Nothing is built. Maven Central has what a minimal distribution is made of, but not the distribution itself:

- `integ-test-zip:opensearch` is a home folder with `bin`, `lib`, `config` and the netty transport alone. What the k-NN
  plugin and an analyzer need is added as modules by hand: `lang-painless` (the plugin extends it, and does not load
  without it) and `analysis-common` (without it no custom analyzer can be made: "failed to find tokenizer").
- A module is a folder with its jars, `plugin-descriptor.properties` and `plugin-security.policy`. The published jars
  hold neither; the class names are those in the jars (`PainlessPlugin`, not `PainlessModulePlugin`). Jars that `lib`
  has too must go, or the node stops with "jar hell".
- The plugin's version has a fourth number, and not every release was published: 2.19.0, 2.19.1, 3.2.0, 3.3.0 and 3.4.0
  were on 2026-11-20; 2.19.2 to 2.19.5 were not.
- The plugin zip has no native library, so the engines `faiss` and `nmslib` are not here: only `lucene` is. A mapping
  that names no engine takes `faiss` and can stop the node at its first flush.
- `config/jvm.options` writes its logs relative to the home: those lines go, since the home is shared and read-only.
- 2.19 runs on JDK 11 to 21 (it sets a SecurityManager, which 24 has no more). It refuses to run as root: as root we
  start it as `nobody`, with folders of its own.

`-Ehttp.port=0` takes a free port; which one stands in the log, and so does "started": nothing is polled.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import threading
import zipfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from filelock import FileLock

VERSION = "2.19.1"
_PLUGIN_VERSION = f"{VERSION}.0"
_START_S = 180
_MAVEN_S = 540

_PAINLESS_POLICY = """grant {
  permission java.lang.RuntimePermission "createClassLoader";
  permission java.lang.RuntimePermission "getClassLoader";
};
"""
_MODULES = {
    "lang-painless": ("org.opensearch.painless.PainlessPlugin", _PAINLESS_POLICY),
    "analysis-common": ("org.opensearch.analysis.common.CommonAnalysisPlugin", None),
}
_GOAL = "org.apache.maven.plugins:maven-dependency-plugin:2.8:copy-dependencies"
_PROJECT = """<project><modelVersion>4.0.0</modelVersion><groupId>node</groupId><artifactId>{name}</artifactId>
<version>1</version><packaging>pom</packaging>{body}</project>
"""
_DEPENDENCY = """<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version>
<type>{type}</type>{more}</dependency>
"""
_ALONE = "<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>"
_HOME = Path.home()  # before the tests point HOME elsewhere


class NodeUnavailableError(Exception):
    """There is no node and nothing to make one of; says what is missing."""


@contextmanager
def running_node() -> Iterator[str]:
    """The URL of a node, which is stopped afterwards if it was started here.

    Raises:
        NodeUnavailableError: No URL is given, no container can be run, and Java or Maven is missing.
        RuntimeError: With all that is needed at hand the node did not start; the end of its log is in the message.
    """
    given = os.environ.get("VRAG_TEST_OPENSEARCH_URL")
    if given:
        yield given.rstrip("/")
    elif _docker_answers():
        with _container() as url:
            yield url
    else:
        java_home = _java_home()
        if shutil.which("mvn") is None:
            raise NodeUnavailableError("no VRAG_TEST_OPENSEARCH_URL, no usable docker, and no mvn on the PATH")
        with _process(_assembled(java_home), java_home) as url:
            yield url


def _docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    try:
        answer = subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return False
    return answer.returncode == 0


@contextmanager
def _container() -> Iterator[str]:
    name = f"vrag-opensearch-{os.getpid()}"
    command = ["docker", "run", "--rm", "--name", name, "-p", "127.0.0.1:0:9200", "-e", "discovery.type=single-node",
               "-e", "DISABLE_SECURITY_PLUGIN=true", "-e", "DISABLE_INSTALL_DEMO_CONFIG=true",
               "-e", "OPENSEARCH_JAVA_OPTS=-Xms512m -Xmx512m", f"opensearchproject/opensearch:{VERSION}"]  # fmt: skip
    node = _Started(command)
    try:
        node.wait()
        found = subprocess.run(["docker", "port", name, "9200"], capture_output=True, text=True, check=True)
        yield f"http://{found.stdout.split()[0]}"
    finally:
        subprocess.run(["docker", "stop", "-t", "5", name], capture_output=True, check=False)
        node.stop()


@contextmanager
def _process(home: Path, java_home: Path) -> Iterator[str]:
    """The assembled node on free loopback ports, with its own configuration, data and logs, and not as root."""
    folder = Path(tempfile.mkdtemp(prefix="vrag-opensearch-"))
    try:
        shutil.copytree(home / "config", folder / "config")
        options = folder / "config" / "jvm.options"
        # Its paths are relative to the home, which the node must not write to.
        options.write_text(re.sub(r"(?m)^.*(=logs/|HeapDumpPath=).*$", "", options.read_text()))
        for name in ("data", "logs", "tmp"):
            (folder / name).mkdir()
        who = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam("nobody")
            who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            for path in (folder, *folder.rglob("*")):
                os.chown(path, user.pw_uid, user.pw_gid)
        settings = {
            "discovery.type": "single-node",
            "network.host": "127.0.0.1",
            "http.port": "0",
            "transport.port": "0",
            "path.data": folder / "data",
            "path.logs": folder / "logs",
            "cluster.routing.allocation.disk.threshold_enabled": "false",
        }
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "OPENSEARCH_JAVA_HOME": str(java_home),
            "OPENSEARCH_PATH_CONF": str(folder / "config"),
            "OPENSEARCH_TMPDIR": str(folder / "tmp"),
            "OPENSEARCH_JAVA_OPTS": "-Xms512m -Xmx512m",
        }
        command = [str(home / "bin" / "opensearch"), *(f"-E{name}={value}" for name, value in settings.items())]
        node = _Started(command, env=environment, cwd=folder, **who)
        try:
            yield f"http://{node.wait()}"
        finally:
            node.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Started:
    """A process whose log is read all the time, so that it never waits for us."""

    def __init__(self, command, **options):
        self.log = deque(maxlen=60)
        self._known = threading.Event()
        self._address = None
        self._is_up = False
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            self.log.append(line.rstrip())
            if found := re.search(r"HttpServerTransport.*publish_address \{([^}]+)\}", line):
                self._address = found[1]
            if re.search(r"\[o\.o\.n\.Node +\].*\] started", line):
                self._is_up = True
                self._known.set()
        self._known.set()

    def wait(self):
        """The address of its HTTP side; raises with the end of the log if it does not start."""
        self._known.wait(_START_S)
        if not self._is_up or self._address is None:
            self.stop()
            raise RuntimeError("OpenSearch did not start:\n" + "\n".join(self.log))
        return self._address

    def stop(self):
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._process.stdout.close()


def _java_home() -> Path:
    """A JDK that 2.19 runs on: 11 to 21, the one nearest to 17."""
    homes = [Path(os.environ[name]) for name in ("OPENSEARCH_JAVA_HOME", "JAVA_HOME") if os.environ.get(name)]
    homes += sorted(Path("/usr/lib/jvm").glob("*")) if Path("/usr/lib/jvm").is_dir() else []
    if on_path := shutil.which("java"):
        homes.append(Path(on_path).resolve().parents[1])
    fitting = {}
    for home in homes:
        if (home / "bin" / "java").exists():
            said = subprocess.run(
                [home / "bin" / "java", "-version"], capture_output=True, text=True, check=False
            ).stderr
            if (found := re.search(r'version "(\d+)', said)) and 11 <= int(found[1]) <= 21:
                fitting.setdefault(abs(int(found[1]) - 17), home)
    if not fitting:
        raise NodeUnavailableError("no VRAG_TEST_OPENSEARCH_URL, no usable docker, and no JDK 11 to 21")
    return fitting[min(fitting)]


def _cache() -> Path:
    """Where the home is kept. As root it must be where `nobody` can read, and nobody else may have made it."""
    if os.geteuid() == 0:
        folder = Path(tempfile.gettempdir()) / "vrag-tests-root"
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or _HOME / ".cache") / "vrag-tests"
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise RuntimeError(f"{folder} is not ours alone: remove it")
    return folder


def _assembled(java_home: Path) -> Path:
    """The home folder, from the cache or made anew; it appears whole or not at all."""
    recipe = hashlib.sha256(repr((_MODULES, _GOAL, _PROJECT, _DEPENDENCY)).encode()).hexdigest()[:12]
    home = _cache() / f"opensearch-{VERSION}-{recipe}"
    with FileLock(f"{home}.lock"):
        if not home.exists():
            work = Path(tempfile.mkdtemp(prefix=f"{home.name}.", dir=home.parent))
            try:
                _assemble(work, java_home).rename(home)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return home


def _assemble(work: Path, java_home: Path) -> Path:
    _run_maven(work, java_home)
    with zipfile.ZipFile(work / "zips" / "jars" / f"opensearch-{VERSION}.zip") as archive:
        archive.extractall(work)
    home = work / f"opensearch-{VERSION}"
    for script in (home / "bin").iterdir():
        script.chmod(0o755)
    plugin = home / "plugins" / "opensearch-knn"
    plugin.mkdir(parents=True)
    with zipfile.ZipFile(work / "zips" / "jars" / f"opensearch-knn-{_PLUGIN_VERSION}.zip") as archive:
        archive.extractall(plugin)
    in_lib = {path.name for path in (home / "lib").iterdir()}
    for name, (class_name, policy) in _MODULES.items():
        module = home / "modules" / name
        module.mkdir()
        for jar in (work / name / "jars").iterdir():
            if jar.name not in in_lib:
                jar.rename(module / jar.name)
        (module / "plugin-descriptor.properties").write_text(
            f"name={name}\ndescription={name}\nversion={VERSION}\nopensearch.version={VERSION}\njava.version=11\n"
            f"classname={class_name}\n"
        )
        if policy is not None:
            (module / "plugin-security.policy").write_text(policy)
    for path in chain([home], home.rglob("*")):  # whatever the umask is, the node's user reads it
        path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
    return home


def _run_maven(work: Path, java_home: Path) -> None:
    """One run of Maven over one project for each module, and one for the two archives."""
    zips = _DEPENDENCY.format(
        group="org.opensearch.distribution.integ-test-zip",
        artifact="opensearch",
        version=VERSION,
        type="zip",
        more=_ALONE,
    ) + _DEPENDENCY.format(
        group="org.opensearch.plugin", artifact="opensearch-knn", version=_PLUGIN_VERSION, type="zip", more=_ALONE
    )
    needed = {"zips": zips}
    for name in _MODULES:
        needed[name] = _DEPENDENCY.format(
            group="org.opensearch.plugin", artifact=name, version=VERSION, type="jar", more=""
        )
    for name, dependencies in needed.items():
        (work / name).mkdir()
        (work / name / "pom.xml").write_text(
            _PROJECT.format(name=name, body=f"<dependencies>{dependencies}</dependencies>")
        )
    modules = "".join(f"<module>{name}</module>" for name in needed)
    (work / "pom.xml").write_text(_PROJECT.format(name="node", body=f"<modules>{modules}</modules>"))
    ran = subprocess.run(
        ["mvn", "-q", "-B", _GOAL, "-DincludeScope=runtime", "-DoutputDirectory=jars", "-Dmdep.useBaseVersion=true"],
        cwd=work,
        env={**os.environ, "HOME": str(_HOME), "JAVA_HOME": str(java_home)},
        capture_output=True,
        text=True,
        timeout=_MAVEN_S,
        check=False,
    )
    if ran.returncode:
        raise RuntimeError("Maven could not fetch the parts of OpenSearch:\n" + (ran.stdout + ran.stderr)[-3000:])


if __name__ == "__main__":  # what needs a network, before tests that run without one
    if "VRAG_TEST_OPENSEARCH_URL" not in os.environ and not _docker_answers():
        print(_assembled(_java_home()))
