"""Opening an object store by its address, and what its errors say."""

import obstore
import pytest
from obstore.exceptions import AlreadyExistsError, GenericError

from focalis.errors import DataError, UsageError
from focalis.object_store import open_object_store, store_errors


def test_a_folder_is_an_object_store_that_writes_once(tmp_path):
    store = open_object_store(tmp_path.as_uri())
    obstore.put(store, "a/b", b"first", mode="create")
    with pytest.raises(AlreadyExistsError), store_errors("a/b"):
        obstore.put(store, "a/b", b"second", mode="create")
    assert bytes(obstore.get(store, "a/b").bytes()) == b"first"
    assert (tmp_path / "a" / "b").read_bytes() == b"first"


@pytest.mark.parametrize("address", ["bucket/prefix", "ftp://host/x", "s3://"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(UsageError, match="is not an address such as s3://BUCKET/PREFIX"):
        open_object_store(address)


def test_a_missing_object_passes_as_the_answer_that_it_is(tmp_path):
    with pytest.raises(FileNotFoundError), store_errors("a"):
        obstore.head(open_object_store(tmp_path.as_uri()), "a")


def test_an_error_is_one_line_with_its_code_and_without_the_request():
    said = "Error performing GET http://h/b: 403: <?xml?>\n<Error><Code>InvalidAccessKeyId</Code><AWSAccessKeyId>K7</A"
    with pytest.raises(DataError) as caught, store_errors("s3://b/x"):
        raise GenericError(said)
    assert str(caught.value) == (
        "s3://b/x: cannot be read (Error performing GET http://h/b: 403, InvalidAccessKeyId); check the object store"
    )


@pytest.mark.parametrize("said", ["", "<?xml?><Error><Code>SlowDown</Code></Error>"])
def test_an_error_without_a_text_of_its_own_is_one_line_too(said):
    with pytest.raises(DataError, match=r"cannot be read \(GenericError"), store_errors("s3://b/x"):
        raise GenericError(said)
