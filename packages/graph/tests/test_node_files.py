"""Readers of one big graph, on files laid out as the originals are."""

from __future__ import annotations

import gzip
import pickle
import sys
import types
from collections import defaultdict
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
import torch

from ssl_core.batch import Source
from ssl_core.errors import UserError
from ssl_core.recipe import Data
from ssl_graph.domain import GRAPH
from ssl_graph.graph import RawGraph
from ssl_graph.nodes.files.single import table_of
from ssl_graph.nodes.reader import NodeReader
from ssl_graph.nodes.source import NodeSource, NodeTable
from ssl_graph.pyg import data as pyg_data


def public(source: Source) -> dict[str, np.ndarray]:
    assert isinstance(source, NodeSource)
    assert source.public is not None
    return source.public


def planetoid(folder: Path, *, name: str = "tiny", module: str = "scipy.sparse.csr") -> Path:
    """Eight files as the release has them: protocol-2 pickles of scipy matrices."""
    holder = types.ModuleType(module)
    csr = type("csr_matrix", (), {"__module__": module, "__qualname__": "csr_matrix"})
    holder.csr_matrix = csr  # type: ignore[attr-defined]

    def matrix(rows: list[list[int]]) -> object:
        dense = np.array(rows, dtype=np.float32).reshape(len(rows), 3)
        made = csr()
        made.indptr = np.concatenate([[0], np.cumsum((dense > 0).sum(1))]).astype(np.int32)
        made.indices = np.nonzero(dense)[1].astype(np.int32)
        made.data = dense[dense > 0]
        made._shape = dense.shape
        return made

    def labels(classes: list[int]) -> np.ndarray:
        return np.eye(2, dtype=np.int32)[classes]

    allx = [[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1], [0, 1, 1]]
    parts = {
        "x": matrix(allx[:2]),
        "y": labels([0, 1]),
        "allx": matrix(allx),
        "ally": labels([0, 1, 0, 1, 1]),
        "tx": matrix([[0, 0, 1], [1, 0, 0]]),
        "ty": labels([1, 0]),
        "graph": defaultdict(list, {0: [1, 2, 0], 1: [0], 2: [0, 5], 5: [2, 7], 7: [5], 3: [4]}),
    }
    missing = module not in sys.modules
    before = sys.modules.get(module)
    sys.modules[module] = holder
    try:
        for part, value in parts.items():
            (folder / f"ind.{name}.{part}").write_bytes(pickle.dumps(value, protocol=2))
    finally:
        if missing:
            del sys.modules[module]
        else:
            sys.modules[module] = before  # type: ignore[assignment]
    (folder / f"ind.{name}.test.index").write_text("7\n5\n")
    return folder


@pytest.mark.parametrize("module", ["scipy.sparse.csr", "scipy.sparse._csr"])
def test_planetoid_files_read_as_released(tmp_path: Path, module: str) -> None:
    source = GRAPH.open(Data(path=str(planetoid(tmp_path, module=module))))
    assert isinstance(source, NodeSource)
    assert len(source) == 8  # node 6 is missing in test.index: isolated, unlabelled
    assert [source[i].label for i in range(8)] == [0, 1, 0, 1, 1, 0, None, 1]
    split = public(source)
    assert split["train"].tolist() == [0, 1]
    assert split["val"].tolist() == [2, 3, 4]
    assert split["test"].tolist() == [5, 7]
    raw = source.table.graph
    assert raw.attributes is not None
    assert raw.attributes[7].tolist() == [0, 0, 1]  # first row of tx is the first of test.index
    assert raw.attributes[5].tolist() == [1, 0, 0]
    assert raw.attributes[6].tolist() == [0, 0, 0]
    reader = GRAPH.fit_reader(source, Data(options={"row_normalize": True}))
    batch = reader.collate([reader.decode(source[i]) for i in range(8)])
    assert batch.network.num_edges == 10  # the self-loop is gone, 3-4 has both directions
    assert torch.allclose(batch.network.x.sum(1), torch.tensor([1.0] * 6 + [0, 1]))
    assert source[0].meta == {"part": "train"}


def test_planetoid_files_read_as_pyg_reads_them(tmp_path: Path) -> None:
    """On matrices that scipy pickled itself, as in the release."""
    from torch_geometric.io import read_planetoid_data

    rng = np.random.default_rng(0)
    dense = (rng.random((700, 20)) < 0.2).astype(np.float32)
    labels = np.eye(3, dtype=np.int32)[rng.integers(3, size=700)]
    test = rng.permutation(np.arange(600, 700))
    near = {v: sorted({int(u) for u in rng.integers(700, size=3)} - {v}) for v in range(700)}
    graph: defaultdict[int, list[int]] = defaultdict(list)
    for v, neighbours in near.items():
        for u in neighbours:
            graph[v].append(u)
            graph[u].append(v)
    parts = {
        "x": sp.csr_matrix(dense[:30]),
        "y": labels[:30],
        "allx": sp.csr_matrix(dense[:600]),
        "ally": labels[:600],
        "tx": sp.csr_matrix(dense[test]),
        "ty": labels[test],
        "graph": graph,
    }
    for part, value in parts.items():
        (tmp_path / f"ind.cora.{part}").write_bytes(pickle.dumps(value, protocol=2))
    (tmp_path / "ind.cora.test.index").write_text("".join(f"{row}\n" for row in test))
    want = read_planetoid_data(str(tmp_path), "cora")
    source = GRAPH.open(Data(path=str(tmp_path)))
    assert isinstance(source, NodeSource)
    reader = GRAPH.fit_reader(source, Data(options={"standardize": False}))
    network = reader.decode(source[0]).network
    assert torch.equal(network.x, want.x)
    assert [source[i].label for i in range(700)] == want.y.tolist()
    ours = torch.stack([network.neighbours, network.targets])
    proper = want.edge_index[:, want.edge_index[0] != want.edge_index[1]]
    assert set(map(tuple, ours.T.tolist())) == set(map(tuple, proper.T.tolist()))
    assert ours.shape == proper.shape
    for part, rows in public(source).items():
        assert torch.equal(want[f"{part}_mask"].nonzero()[:, 0], torch.from_numpy(rows))


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (print, ("ran",))

    planetoid(tmp_path)
    (tmp_path / "ind.tiny.graph").write_bytes(pickle.dumps(Bomb(), protocol=2))
    with pytest.raises(UserError, match=r"refuses to load __builtin__\.print"):
        GRAPH.open(Data(path=str(tmp_path)))
    (tmp_path / "ind.tiny.graph").write_bytes(b"")
    with pytest.raises(UserError, match="is not a Planetoid file"):
        GRAPH.open(Data(path=str(tmp_path)))


def ogb(folder: Path) -> Path:
    (folder / "raw").mkdir()
    (folder / "split" / "time").mkdir(parents=True)
    files = {
        "raw/edge": "0,1\n1,2\n3,0\n",
        "raw/num-node-list": "4\n",
        "raw/node-feat": "0.5,1\n1,0\n-1,2\n0,0\n",
        "raw/node-label": "3\n1\nnan\n3\n",
        "split/time/train": "0\n1\n",
        "split/time/valid": "2\n",
        "split/time/test": "3\n",
    }
    for name, text in files.items():
        (folder / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode()))
    return folder


def test_ogb_folders(tmp_path: Path) -> None:
    source = GRAPH.open(Data(path=str(ogb(tmp_path))))
    assert isinstance(source, NodeSource)
    assert [source[i].label for i in range(4)] == [1, 0, None, 1]
    assert source.classes == ["1", "3"]
    assert {k: v.tolist() for k, v in public(source).items()} == {
        "train": [0, 1],
        "val": [2],
        "test": [3],
    }
    assert source.table.graph.edges.tolist() == [[0, 1], [1, 2], [3, 0]]
    (tmp_path / "split" / "time" / "test.csv.gz").write_bytes(gzip.compress(b"4\n"))
    with pytest.raises(UserError, match=r"rows outside 0\.\.3"):
        GRAPH.open(Data(path=str(tmp_path)))
    (tmp_path / "raw" / "node-feat.csv.gz").write_bytes(gzip.compress(b"1,2\n"))
    with pytest.raises(UserError, match="node-feat has 1 rows, expected 4"):
        GRAPH.open(Data(path=str(tmp_path)))


def test_tables_of_nodes_and_edges(tmp_path: Path) -> None:
    (tmp_path / "nodes.csv").write_text(
        "id,age,town,label,split\na,30,X,red,train\nb,41,Y,blue,test\nc,25,X,,valid\n"
    )
    (tmp_path / "edges.csv").write_text("source,target,weight\na,b,0.5\nc,b,2\n")
    source = GRAPH.open(Data(path=str(tmp_path)))
    assert isinstance(source, NodeSource)
    assert [source[i].label for i in range(3)] == [1, 0, None]
    assert source[1].key == f"{tmp_path.name}/b"
    assert public(source)["val"].tolist() == [2]
    reader = NodeReader.fit(source)
    assert reader.spec["node_dim"] == 3  # age, two towns
    assert reader.spec["edge_dim"] == 1
    (tmp_path / "edges.csv").write_text("source,target\na,d\n")
    with pytest.raises(UserError, match=r"edge 1 of .* names 'd', no node"):
        GRAPH.open(Data(path=str(tmp_path)))
    (tmp_path / "nodes.csv").write_text("id,age\na,1\na,2\n")
    with pytest.raises(UserError, match="has the node 'a' twice"):
        GRAPH.open(Data(path=str(tmp_path)))


def test_tables_in_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    nodes = pyarrow.table({"node": [10, 20], "x": [0.5, 1.5], "y": [0, 1]})
    parquet.write_table(nodes, tmp_path / "nodes.parquet")
    parquet.write_table(pyarrow.table({"src": [10], "dst": [20]}), tmp_path / "edges.parquet")
    source = GRAPH.open(Data(path=str(tmp_path)))
    assert [source[i].label for i in range(2)] == [0, 1]
    assert source[0].payload.table.graph.edges.tolist() == [[0, 1]]


def test_a_table_of_edges_alone_in_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"src": ["b", "a"], "dst": ["a", "c"], "weight": [0.5, 2.0]})
    parquet.write_table(table, tmp_path / "e.parquet")
    source = GRAPH.open(Data(path=str(tmp_path / "e.parquet"), options={"level": "node"}))
    graph = source[0].payload.table.graph
    assert (graph.num_nodes, graph.edges.tolist()) == (3, [[0, 1], [1, 2]])
    assert graph.edge_attributes.tolist() == [[0.5], [2.0]]
    with pytest.raises(UserError, match=r"no column 'path'.*set data.options.level to node"):
        GRAPH.open(Data(path=str(tmp_path / "e.parquet")))
    parquet.write_table(
        pyarrow.table({"src": ["b", None], "dst": ["a", "c"]}), tmp_path / "e.parquet"
    )
    with pytest.raises(UserError, match=r"edge 2 of .* lacks one of its two nodes"):
        GRAPH.open(Data(path=str(tmp_path / "e.parquet"), options={"level": "node"}))


def test_a_column_of_numbers_with_a_stray_word_is_no_category(tmp_path: Path) -> None:
    rows = [f"{i},{'?' if i == 7 else i}\n" for i in range(20)]
    (tmp_path / "nodes.csv").write_text("id,age\n" + "".join(rows))
    (tmp_path / "edges.csv").write_text("source,target\n0,1\n")
    with pytest.raises(UserError, match=r"'age' is numbers but for 1, .* '\?' in row 8"):
        GRAPH.open(Data(path=str(tmp_path)))


def test_pyg_data_sets_on_disk(tmp_path: Path) -> None:
    data = pyg_data.Data(
        x=torch.eye(3),
        edge_index=torch.tensor([[0, 1], [1, 2]]),
        y=torch.tensor([0, 1, 0]),
        train_mask=torch.tensor([True, False, False]),
        test_mask=torch.tensor([False, True, True]),
    )
    (tmp_path / "Mini" / "processed").mkdir(parents=True)
    path = tmp_path / "Mini" / "processed" / "data.pt"
    for stored in (data, (data.to_dict(), None, pyg_data.Data), (data, None)):
        torch.save(stored, path)
        source = GRAPH.open(Data(path=str(tmp_path / "Mini")))
        assert isinstance(source, NodeSource)
        assert [source[i].label for i in range(3)] == [0, 1, 0]
        assert source[0].key == "Mini/0"
        assert public(source)["test"].tolist() == [1, 2]
    path.write_bytes(b"not a data set")
    with pytest.raises(UserError, match="is not a PyG data set"):
        GRAPH.open(Data(path=str(tmp_path / "Mini")))


def test_pyg_data_sets_of_many_graphs_are_collections(tmp_path: Path) -> None:
    from torch_geometric.data import InMemoryDataset

    made = []
    for i in range(5):
        ring = torch.arange(3 + i)
        edges = torch.stack([ring, ring.roll(1)])
        x = torch.rand(3 + i, 2, generator=torch.Generator().manual_seed(i))
        made.append(pyg_data.Data(x=x, edge_index=edges, y=torch.tensor([i % 2])))
    folder = tmp_path / "rings"
    (folder / "processed").mkdir(parents=True)
    InMemoryDataset.save(made, str(folder / "processed" / "data.pt"))
    with pytest.raises(UserError, match=r"holds 5 graphs; set data\.options\.level"):
        GRAPH.open(Data(path=str(folder)))
    data = Data(path=str(folder), options={"level": "graph", "standardize": False})
    source = GRAPH.open(data)
    assert [source[i].label for i in range(5)] == [0, 1, 0, 1, 0]
    assert source[4].key == "rings/4"
    reader = GRAPH.fit_reader(source, data)
    for i, graph in enumerate(made):
        read = reader.decode(source[i])
        assert torch.equal(read.x, graph.x)
        assert read.edge_index.shape[1] == 2 * (3 + i)  # both directions


def test_graph_files_and_networkx_as_nodes(tmp_path: Path) -> None:
    karate = nx.karate_club_graph()
    for _, _, values in karate.edges(data=True):
        values.clear()
    table = table_of(karate, target="club")
    assert NodeSource(table).classes == ["Mr. Hi", "Officer"]
    assert table.graph.labels is None
    nx.write_graphml(karate, tmp_path / "karate.graphml")
    data = Data(path=str(tmp_path / "karate.graphml"), options={"level": "node", "target": "club"})
    source = GRAPH.open(data)
    assert len(source) == 34
    assert GRAPH.fit_reader(source, data).spec["features"] == "degree"
    with pytest.raises(UserError, match=r"nodes have no 'clubs'; they have \['club'\]"):
        GRAPH.open(data.model_copy(update={"options": {"level": "node", "target": "clubs"}}))


def test_the_karate_club_comes_along() -> None:
    source = GRAPH.open(Data(path="networkx:karate"))
    assert (len(source), source.classes) == (34, ["Mr. Hi", "Officer"])
    data = Data(options={"features": "laplacian", "positions": 1})
    x = GRAPH.fit_reader(source, data).decode(source[0]).network.x[:, 0]
    clubs = torch.tensor([source[i].label for i in range(34)])
    assert max(((x > 0) == clubs).float().mean(), ((x < 0) == clubs).float().mean()) > 0.9


def test_broken_networks_are_refused_before_any_work() -> None:
    def reader(**changes: object) -> NodeReader:
        values: dict[str, object] = {
            "num_nodes": 3,
            "edges": np.array([[0, 1]]),
            "attributes": np.ones((3, 2), dtype=np.float32),
        }
        return NodeReader.fit(NodeSource(NodeTable(RawGraph(**{**values, **changes}))))  # type: ignore[arg-type]

    with pytest.raises(UserError, match=r"node ids must lie in 0\.\.2"):
        reader(edges=np.array([[0, 3]]))
    bad = np.ones((3, 2), dtype=np.float32)
    bad[1, 1] = np.nan
    with pytest.raises(UserError, match="not all finite: node 1 has nan in column 1"):
        reader(attributes=bad)
    with pytest.raises(UserError, match="has no nodes"):
        NodeSource(NodeTable(RawGraph(0, np.zeros((0, 2), dtype=np.int64))))
    with pytest.raises(UserError, match="2 labels for 3 nodes"):
        NodeTable(RawGraph(3, np.zeros((0, 2), dtype=np.int64)), labels=[0, 1])
    spec = reader(edges=np.array([[0, 1], [1, 0], [0, 1], [2, 2]])).spec
    assert spec["edges"] == 2
    assert spec["met"] == {"self-loops": 1, "repeated edges": 1, "nodes without an edge": 1}


def test_files_in_other_encodings_or_with_other_content_say_so(tmp_path: Path) -> None:
    (tmp_path / "nodes.csv").write_bytes("id,town\na,Zürich\n".encode("latin-1"))
    (tmp_path / "edges.csv").write_text("source,target\na,a\n")
    with pytest.raises(UserError, match=r"nodes\.csv is not a table in UTF-8"):
        GRAPH.open(Data(path=str(tmp_path)))
    (tmp_path / "nodes.csv").write_text("id,age\na,1\nb,\n")
    with pytest.raises(UserError, match="node 1 has no 'age', though others have"):
        GRAPH.open(Data(path=str(tmp_path)))
    (tmp_path / "p").mkdir()
    planetoid(tmp_path / "p")
    (tmp_path / "p" / "ind.tiny.test.index").write_text("7\nfive\n")
    with pytest.raises(UserError, match=r"test\.index, line 2: 'five' is not one of whole numbers"):
        GRAPH.open(Data(path=str(tmp_path / "p")))
    (tmp_path / "p" / "ind.tiny.test.index").write_text("7\n2\n")
    with pytest.raises(UserError, match="names rows below 5"):
        GRAPH.open(Data(path=str(tmp_path / "p")))
    (tmp_path / "o").mkdir()
    ogb(tmp_path / "o")
    (tmp_path / "o" / "raw" / "edge.csv.gz").write_bytes(gzip.compress(b"0,1\n1,x\n"))
    with pytest.raises(UserError, match="cannot be read as columns"):
        GRAPH.open(Data(path=str(tmp_path / "o")))


def test_a_reader_saves_and_loads(tmp_path: Path) -> None:
    data = Data(path="blocks:60:1", options={"sampler": "khop", "sampling": {"hops": 1}})
    source = GRAPH.open(data)
    reader = GRAPH.fit_reader(source, data)
    reader.save(tmp_path)
    again = GRAPH.load_reader(tmp_path)
    assert again.spec == reader.spec
    one = reader.collate([reader.decode(source[i]) for i in (3, 9)])
    two = again.collate([again.decode(source[i]) for i in (3, 9)])
    assert torch.equal(one.plain().x, two.plain().x)
    assert torch.equal(reader.raw(one), again.raw(two))
    assert reader.raw(one.plain()).shape == reader.raw(one).shape
    with pytest.raises(UserError, match="did you mean 'sampler'"):
        GRAPH.fit_reader(source, Data(options={"samplr": "khop"}))
    with pytest.raises(UserError, match="blocks:NODES"):
        GRAPH.open(Data(path="blocks:many"))
