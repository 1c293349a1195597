from flux_pipelines.domain.dictionary import render
from flux_pipelines.domain.tables import TABLES
from flux_pipelines.settings import PROJECT_ROOT


def test_the_data_dictionary_is_what_the_contracts_say() -> None:
    assert (PROJECT_ROOT / "docs" / "data-dictionary.md").read_text() == render(), "run `make docs`"


def test_keys_and_partitions_are_columns_and_every_column_has_a_meaning() -> None:
    for table in TABLES:
        assert set(table.key) <= set(table.column_names)
        assert set(table.partition_by) <= set(table.column_names)
        assert len(set(table.column_names)) == len(table.columns)
        assert all(column.meaning.endswith((".", ")")) for column in table), table.name


def test_money_never_stands_without_its_currency() -> None:
    for table in TABLES:
        if any(column.type == "money" for column in table):
            assert "currency" in table.column_names, table.name


def test_arrow_schemas_follow_the_contract() -> None:
    for table in TABLES:
        schema = table.arrow_schema()
        assert schema.names == list(table.column_names)
        assert [field.nullable for field in schema] == [not column.required for column in table]
