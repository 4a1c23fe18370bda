"""What the page calls a patient."""

import pytest

from focalis.device.web.study_identity import identify


@pytest.mark.parametrize(
    ("codec", "charset", "name", "shown"),
    [
        ("utf-8", "latin-1", "Müller^Eva", "Müller, Eva"),
        ("latin-1", "latin-1", "Müller^Eva", "Müller, Eva"),
        ("iso8859_5", "iso8859_5", "Иванов^Иван", "Иванов, Иван"),
    ],
)
def test_a_name_of_no_character_set_is_read_by_the_chosen_one(
    write_series, stored, grid, tmp_path, codec, charset, name, shown
):
    written = name.encode(codec)
    file = write_series(tmp_path, stored, grid, PatientName="X" * len(written))[0]
    file.write_bytes(file.read_bytes().replace(b"X" * len(written), written))
    assert identify([str(file)], charset)[0]["name"] == shown
