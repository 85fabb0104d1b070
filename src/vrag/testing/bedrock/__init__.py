"""A fake Bedrock runtime over real HTTP, for tests of programs that use Bedrock.

It checks each request against the service model of botocore, its signature, and the documented limits of each model;
keeps jobs with tokens and states; writes films that play to S3; counts charges; and fails on demand. It says nothing of
the quality of a model, and its quotas are not those of an account.
"""

from __future__ import annotations

from vrag.testing.bedrock.jobs import Charge, Ending
from vrag.testing.bedrock.server import FakeBedrock, LostReply, serve
from vrag.testing.bedrock.wire import Refusal

__all__ = ["Charge", "Ending", "FakeBedrock", "LostReply", "Refusal", "serve"]
