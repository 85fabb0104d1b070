"""Clients of one account whose answers a test writes down: botocore checks each question and each answer."""

import boto3
import pytest
from botocore.stub import Stubber

from vrag.backends.aws.infrastructure.choices import Names
from vrag.backends.aws.infrastructure.stack import Clients
from vrag.backends.aws.infrastructure.template import STACK_TAG

ACCOUNT, REGION = "123456789012", "us-west-2"
SERVICES = ("cloudformation", "s3", "opensearchserverless", "iam", "kms", "sts")


class Account:
    """An account as the services tell of it. `told` answers the next call of an operation; nothing else is answered."""

    def __init__(self, made, stack="studio"):
        self.clients = Clients(**made)
        self.names = Names(stack=stack, account=ACCOUNT, region=REGION)
        self.stubs = {service: Stubber(client) for service, client in made.items()}
        for stub in self.stubs.values():
            stub.activate()

    def tells(self, service, operation, answer, asked=None):
        self.stubs[service].add_response(operation, answer, asked)

    def refuses(self, service, operation, code, message="", status=400, asked=None):
        self.stubs[service].add_client_error(operation, code, message, status, expected_params=asked)

    def tells_stack(self, status, **more):
        told = {
            "StackName": self.names.stack,
            "StackId": "arn:studio",
            "CreationTime": "2026-01-01T00:00:00Z",
            "StackStatus": status,
            "Tags": [{"Key": STACK_TAG, "Value": self.names.stack}],
        }
        self.tells("cloudformation", "describe_stacks", {"Stacks": [told | more]})

    def has_no_stack(self):
        self.refuses("cloudformation", "describe_stacks", "ValidationError", "Stack with id x does not exist")

    def tells_caller(self):
        self.tells(
            "sts",
            "get_caller_identity",
            {"Account": ACCOUNT, "Arn": f"arn:aws:iam::{ACCOUNT}:user/ann", "UserId": "ann"},
        )

    def lists(self, *states):
        rows = [
            {
                "LogicalResourceId": f"R{number}",
                "PhysicalResourceId": f"r{number}",
                "ResourceType": "AWS::IAM::Role",
                "ResourceStatus": state,
                "LastUpdatedTimestamp": "2026-01-01T00:00:00Z",
            }
            for number, state in enumerate(states)
        ]
        self.tells("cloudformation", "list_stack_resources", {"StackResourceSummaries": rows})

    def all_was_asked(self):
        for stub in self.stubs.values():
            stub.assert_no_pending_responses()

    def close(self):
        for stub in self.stubs.values():
            stub.deactivate()


@pytest.fixture(scope="session")
def made_clients():
    return {
        service: boto3.client(
            service,
            region_name=REGION,
            aws_access_key_id="AKIAEXAMPLEKEYOFATEST",
            aws_secret_access_key="secret-of-a-test",
        )
        for service in SERVICES
    }


@pytest.fixture
def account(made_clients):
    made = Account(made_clients)
    yield made
    made.close()
