"""The local signer under the contract of `Signer`."""

from __future__ import annotations

from vrag.provenance.signing import LocalSigner
from vrag.testing.contracts import SignerContract


class TestLocalSigner(SignerContract):
    def make(self, tmp_path):
        return LocalSigner.load_or_create(tmp_path / "signing-key.pem")

    def sent(self, backend):
        return 0
