"""gs:// and az:// by obstore without a network: a signed URL says which server, bucket and key are asked.

What the services answer is not tested.
"""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import obstore
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from stores.errors import RemoteError
from stores.remote import object_client
from stores.remote.object_client import ObjectClient, client_of
from stores.remote.request_errors import error_of
from stores.remote.store_url import StoreUrl, store_path


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def service_account(tmp_path: Path) -> Path:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path / "account.json"
    path.write_text(
        json.dumps(
            {
                "type": "service_account",
                "private_key": pem.decode(),
                "private_key_id": "1",
                "client_email": "reader@project",
                "client_id": "1",
            }
        )
    )
    return path


def asked(text: str) -> tuple[str, dict[str, list[str]]]:
    """The address, and the signature's fields, of a request for the plan of the store at this URL."""
    url = store_path(f"{text}/plan.json")
    assert isinstance(url, StoreUrl) and url.is_writable
    store = ObjectClient(url.place)._store
    signed = urlsplit(str(obstore.sign(store, "GET", url.key, timedelta(seconds=60))))
    return f"{signed.scheme}://{signed.netloc}{signed.path}", parse_qs(signed.query)


def test_google(service_account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(service_account))
    address, signature = asked("gs://bucket/lab features/store")
    assert address == "https://storage.googleapis.com/bucket/lab%20features/store/plan.json"
    assert signature["X-Goog-Credential"][0].startswith("reader@project/")


@pytest.mark.parametrize("content", [None, "{}", '{"private_key": "x"}'])
def test_google_without_a_key(content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "account.json"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    with pytest.raises(RemoteError, match="GOOGLE_APPLICATION_CREDENTIALS does not name"):
        ObjectClient("gs://bucket")


def test_azure(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RemoteError, match="az://container: AZURE_STORAGE_ACCOUNT_NAME is not set"):
        ObjectClient("az://container")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "lab")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")
    address, signature = asked("az://container/features/store")
    assert address == "https://lab.blob.core.windows.net/container/features/store/plan.json"
    assert "sig" in signature and "c2VjcmV0" not in str(signature)
    monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
    assert asked("az://container/a")[0] == "http://127.0.0.1:10000/lab/container/a/plan.json"


def test_another_account_is_another_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "lab")
    first = client_of("az://container")
    assert client_of("az://container") is first
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "other")
    assert client_of("az://container") is not first


def test_profiles_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/remote.md says: a key in ~/.aws signs nothing, one in the environment does."""
    folder = tmp_path / "home" / ".aws"
    folder.mkdir(parents=True)
    for name in ("credentials", "config"):
        (folder / name).write_text("[default]\naws_access_key_id=OFPROFILE\naws_secret_access_key=x\n")
    monkeypatch.setenv("AWS_PROFILE", "default")
    monkeypatch.setattr(object_client, "RETRIES", 0)
    # Keys of a machine's role would be asked for there; nothing listens.
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(RemoteError):
        ObjectClient("s3://bucket", pause=lambda _: None).size("plan.json")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "OFENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    address, signature = asked("s3://bucket/a")
    assert address.endswith("/bucket/a/plan.json")
    assert signature["X-Amz-Credential"][0].startswith("OFENVIRONMENT/")


def test_a_machine_without_a_role_has_no_credentials() -> None:
    """The answer of a machine's own address is none of the bucket."""
    text = "Error performing PUT http://169.254.169.254/latest/api/token - non-2xx status code: 403"
    fault = error_of(obstore.exceptions, "s3://bucket/a", object_client._generic(obstore)(text))
    assert "no credentials were found in the environment" in str(fault) and "403" not in str(fault)
