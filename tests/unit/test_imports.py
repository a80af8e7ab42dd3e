import pytest

from data.errors import UserError
from data.imports import load_object


def test_dotted_attributes_are_found():
    assert load_object("collections:OrderedDict.fromkeys")("ab").keys() == {"a", "b"}


def test_a_missing_submodule_is_named():
    with pytest.raises(UserError, match=r"there is no module 'json.nothing'"):
        load_object("json.nothing:x")


@pytest.mark.parametrize("spec", ["", "module", "module:", ":attribute"])
def test_a_spec_without_both_halves_is_refused(spec):
    with pytest.raises(UserError, match="not of the form module:attribute"):
        load_object(spec)


def test_what_the_module_itself_cannot_import_keeps_its_traceback(tmp_path, monkeypatch):
    (tmp_path / "needs_more.py").write_text("import something_not_installed\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="something_not_installed"):
        load_object("needs_more:x")
