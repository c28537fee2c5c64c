"""Formats on disk: TU folders written byte by byte, GraphML, JSON lines, edge lists."""

from __future__ import annotations

import json
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch

from ssl_core.errors import CorruptSample, UserError
from ssl_graph.reader import GraphReader, raw_graph
from ssl_graph.sources.convert import from_json, from_networkx
from ssl_graph.sources.files import parse_edge_list, parse_file, parse_graphml
from ssl_graph.sources.jsonl import GraphLines
from ssl_graph.sources.memory import GraphList
from ssl_graph.sources.open import open_graphs
from ssl_graph.sources.tu import TUFolder

# Two graphs: a triangle (nodes 1-3) and an edge with an isolated node (nodes 4-6).
TU = {
    "A": "1, 2\n2, 1\n2, 3\n3, 2\n1, 3\n3, 1\n4, 6\n6, 4\n",
    "graph_indicator": "1\n1\n1\n2\n2\n2\n",
    "graph_labels": "-1\n1\n",
    "node_labels": "0\n2\n0\n2\n5\n5\n",
    "node_attributes": "0.5, 1\n1.5, 2\n2.5, 3\n3.5, 4\n4.5, 5\n5.5, 6\n",
    "edge_labels": "7\n7\n8\n8\n9\n9\n7\n7\n",
}


def tu_folder(folder: Path, **changes: str | None) -> Path:
    for what, text in {**TU, **changes}.items():
        if text is not None:
            (folder / f"DS_{what}.txt").write_bytes(text.encode())
    return folder


def test_tu_first_and_last_elements(tmp_path: Path) -> None:
    source = TUFolder(tu_folder(tmp_path))
    assert len(source) == 2
    assert source.classes == ["-1", "1"]
    first, last = source[0], source[1]
    assert (first.key, first.label, last.key, last.label) == ("DS/1", 0, "DS/2", 1)
    assert first.payload.edges.tolist() == [[0, 1], [1, 0], [1, 2], [2, 1], [0, 2], [2, 0]]
    assert first.payload.attributes.tolist() == [[0.5, 1], [1.5, 2], [2.5, 3]]
    assert first.payload.edge_labels[:, 0].tolist() == [7, 7, 8, 8, 9, 9]
    assert last.payload.num_nodes == 3
    assert last.payload.edges.tolist() == [[0, 2], [2, 0]]
    assert last.payload.labels[:, 0].tolist() == [2, 5, 5]
    assert last.payload.edge_labels[:, 0].tolist() == [7, 7]
    assert source.head(1).payload is None


def test_tu_features_are_attributes_then_one_hot_labels(tmp_path: Path) -> None:
    source = TUFolder(tu_folder(tmp_path))
    reader = GraphReader.fit(source, standardize=False)
    assert (reader.spec["node_dim"], reader.spec["edge_dim"]) == (5, 3)
    graph = reader.decode(source[1])
    assert graph.x.tolist() == [[3.5, 4, 0, 1, 0], [4.5, 5, 0, 0, 1], [5.5, 6, 0, 0, 1]]
    assert graph.edge_index.tolist() == [[0, 2], [2, 0]]
    assert graph.edge_attr is not None
    assert graph.edge_attr.tolist() == [[1, 0, 0], [1, 0, 0]]


def test_tu_files_read_as_pyg_reads_them(tmp_path: Path) -> None:
    from torch_geometric.io import read_tu_data

    rng = np.random.default_rng(1)
    graphs, start = [], 0
    lines: dict[str, list[str]] = {name: [] for name in (*TU, "edge_attributes")}
    for number in range(1, 9):
        graph = nx.gnp_random_graph(int(rng.integers(2, 9)), 0.6, seed=number)
        graphs.append(graph)
        for a, b in graph.edges:
            for one, two in ((a, b), (b, a)):
                lines["A"].append(f"{start + one + 1}, {start + two + 1}")
                lines["edge_labels"].append(f"{(a + b) % 3}")
                lines["edge_attributes"].append(f"{a * b / 7:.4f}")
        for node in graph:
            lines["graph_indicator"].append(str(number))
            lines["node_labels"].append(str((node + number) % 4))
            lines["node_attributes"].append(f"{rng.normal():.5f}, {rng.normal():.5f}")
        lines["graph_labels"].append("1" if number % 2 else "-1")
        start += len(graph)
    for name, content in lines.items():
        (tmp_path / f"DS_{name}.txt").write_text("\n".join(content) + "\n")
    want, _, _ = read_tu_data(str(tmp_path), "DS")
    source = TUFolder(tmp_path)
    reader = GraphReader.fit(source, standardize=False)
    ours = [reader.decode(source[i]) for i in range(len(graphs))]
    assert torch.equal(torch.cat([g.x for g in ours]), want.x)
    edge_attr = torch.cat([g.edge_attr for g in ours if g.edge_attr is not None])
    assert torch.equal(edge_attr, want.edge_attr)
    assert torch.equal(torch.cat([g.edge_index for g in ours], dim=1), want.edge_index)
    assert [source[i].label for i in range(len(graphs))] == want.y.tolist()


def test_tu_without_node_labels_gets_degrees(tmp_path: Path) -> None:
    folder = tu_folder(tmp_path, node_labels=None, node_attributes=None, edge_labels=None)
    source = TUFolder(folder)
    reader = GraphReader.fit(source)
    assert reader.schema.kind == "degree"
    assert reader.decode(source[0]).x.tolist() == [[0, 0, 1]] * 3
    assert reader.decode(source[1]).x.tolist() == [[0, 1, 0], [1, 0, 0], [0, 1, 0]]


def test_tu_nodes_of_a_graph_need_not_stand_together(tmp_path: Path) -> None:
    folder = tu_folder(
        tmp_path,
        graph_indicator="2\n1\n2\n1\n",
        A="1, 3\n2, 4\n",
        node_labels="10\n11\n12\n13\n",
        node_attributes=None,
        edge_labels="1\n2\n",
    )
    source = TUFolder(folder)
    assert source[0].payload.labels[:, 0].tolist() == [11, 13]
    assert source[0].payload.edges.tolist() == [[0, 1]]
    assert source[0].payload.edge_labels.tolist() == [[2]]
    assert source[1].payload.labels[:, 0].tolist() == [10, 12]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"A": "0, 1\n"}, r"DS_A.txt, edge 1: node ids must lie in 1..6 .*got 0, 1"),
        ({"A": "1, 2\n2, 7\n"}, r"DS_A.txt, edge 2: .*got 2, 7"),
        ({"A": "1, 2\n3, 4\n"}, r"edge 2: joins node 3 of graph 1 to node 4 of graph 2"),
        ({"A": "1, 2\n2; 3\n"}, r"DS_A.txt, line 2: .*'2; 3'"),
        ({"A": "1, 2\n2, x\n"}, r"DS_A.txt, line 2: 'x' is not one of whole numbers"),
        ({"graph_labels": "1\n"}, r"DS_graph_labels.txt: has 1 lines, .* has 2"),
        ({"node_labels": "1\n2\n"}, r"DS_node_labels.txt: has 2 lines, .* has 6"),
        ({"edge_labels": "1\n"}, r"DS_edge_labels.txt: has 1 lines, but DS_A.txt has 8"),
        ({"graph_indicator": ""}, r"DS_graph_indicator.txt: is empty"),
        ({"graph_indicator": None}, r"DS_graph_indicator.txt is missing"),
    ],
)
def test_tu_errors_name_file_and_line(
    tmp_path: Path, changes: dict[str, str | None], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        TUFolder(tu_folder(tmp_path, **changes))


def test_tu_folder_with_several_collections_asks_which(tmp_path: Path) -> None:
    tu_folder(tmp_path)
    (tmp_path / "OTHER_A.txt").write_text("1, 2\n")
    with pytest.raises(UserError, match=r"DS, OTHER.*data\.options\.name"):
        open_graphs(str(tmp_path))
    with pytest.raises(UserError, match="did you mean 'DS'"):
        open_graphs(str(tmp_path), name="DSX")
    assert len(open_graphs(str(tmp_path), name="DS")) == 2


def test_one_sided_duplicate_and_loop_edges_become_simple(tmp_path: Path) -> None:
    folder = tu_folder(tmp_path, A="1, 2\n1, 2\n2, 2\n3, 2\n", edge_labels="7\n8\n7\n9\n")
    source = TUFolder(folder)
    reader = GraphReader.fit(source)
    graph = reader.decode(source[0])
    assert graph.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert graph.edge_attr is not None
    # The first of the duplicates gives the label, in both directions: 7, 7, 9, 9 of (7, 8, 9).
    assert graph.edge_attr.argmax(1).tolist() == [0, 0, 2, 2]


def test_directed_graphs_keep_their_directions(tmp_path: Path) -> None:
    folder = tu_folder(tmp_path, A="1, 2\n3, 2\n", edge_labels=None)
    source = open_graphs(str(folder), directed=True)
    reader = GraphReader.fit(source, directed=True)
    assert reader.decode(source[0]).edge_index.tolist() == [[0, 2], [1, 1]]
    assert reader.collate([reader.decode(source[0])]).directed


def test_graphml_round_trip(tmp_path: Path) -> None:
    graph = nx.Graph()
    graph.add_node("carbon", mass=12.0, kind="C")
    graph.add_node("oxygen", mass=16.0, kind="O")
    graph.add_edge("oxygen", "carbon", order=2)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(2):
            nx.write_graphml(graph, tmp_path / name / f"{i}.graphml")
    source = open_graphs(str(tmp_path))
    assert len(source) == 4
    assert source.classes == ["a", "b"]
    raw = raw_graph(source[0])
    assert raw.attributes.tolist() == [[12.0], [16.0]]
    assert raw.attribute_names == ("mass",)
    assert raw.labels[:, 0].tolist() == ["C", "O"]
    assert sorted(raw.edges[0].tolist()) == [0, 1]
    assert raw.edge_attributes.tolist() == [[2.0]]
    single = open_graphs(str(tmp_path / "a" / "0.graphml"))
    assert len(single) == 1
    assert single[0].key == "0/0"


def test_graphml_that_is_none_says_so() -> None:
    for text in (b"", b"<graphml>", b"not xml", b"<html></html>"):
        with pytest.raises(CorruptSample, match="GraphML"):
            parse_graphml(text)


def test_edge_list_of_names_weights_comments_and_isolated_nodes() -> None:
    raw = parse_edge_list("# header\nann bob 1.5\nbob\tcid\t2 % note\n\ndee\nann,cid,3\n")
    assert raw.num_nodes == 4
    assert raw.edges.tolist() == [[0, 1], [1, 2], [0, 2]]
    assert raw.edge_attributes is not None
    assert raw.edge_attributes[:, 0].tolist() == [1.5, 2, 3]
    assert parse_edge_list("source,target\n1,2\n").num_nodes == 2
    with pytest.raises(CorruptSample, match="line 2: 0 edge attributes, earlier lines have 1"):
        parse_edge_list("a b 1\nb c\n")
    with pytest.raises(CorruptSample, match=r"line 1: \['x'\] are not numbers"):
        parse_edge_list("a b x\n")
    with pytest.raises(CorruptSample, match="not UTF-8 text: byte 3"):
        parse_file("a.edges", b"1 2\xff")


def test_jsonl_lines_are_found_by_offset(tmp_path: Path) -> None:
    items = [
        {"num_nodes": 3, "edges": [[0, 1]], "label": "ring", "node_labels": ["a", "b", "a"]},
        {"edge_index": [[0, 1], [1, 2]], "x": [[0.5], [1.5], [2.5]], "y": [4], "group": 7},
        {"nodes": [{"id": "p"}, {"id": "q"}], "edges": [{"source": "q", "target": "p"}]},
    ]
    path = tmp_path / "g.jsonl"
    lines = [json.dumps(item) for item in items]
    path.write_text("\n".join([lines[0], "", lines[1], "{broken", lines[2]]), "utf-8")
    source = open_graphs(str(path))
    assert isinstance(source, GraphLines)
    assert len(source) == 4
    assert source.classes == ["4", "ring"]
    assert [source.head(i).label for i in range(4)] == [1, 0, None, None]
    assert source[1].meta == {"group": "7"}
    assert raw_graph(source[0]).labels.tolist() == [["a"], ["b"], ["a"]]
    assert raw_graph(source[1]).edges.tolist() == [[0, 1], [1, 2]]
    assert raw_graph(source[3]).edges.tolist() == [[0, 1]] or raw_graph(source[3]).num_nodes == 2
    with pytest.raises(CorruptSample, match=r"g\.jsonl, line 4: not valid JSON"):
        raw_graph(source[2])


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ([], "expected a JSON object"),
        ({}, "needs 'edges' or 'edge_index'"),
        ({"edges": [[0, 1, 2]]}, "expected pairs"),
        ({"edges": [[0, 1.5]]}, "whole numbers"),
        ({"edges": [[0, 1]], "num_nodes": "two"}, "num_nodes"),
        ({"edges": [[0, 1]], "num_nodes": 2, "x": [[1]]}, "x: expected a list of 2, got 1"),
        ({"edges": [[0, 1]], "x": [[1], [2, 3]]}, "different lengths"),
        ({"edges": [[0, 1]], "x": [["a"], ["b"]]}, "not numbers"),
        ({"edges": [[0, 1]], "features": [[1], [2]]}, "'features' is not read; write it as 'x'"),
        ({"nodes": [{"id": 1}], "edges": [{"source": 1, "target": 2}]}, "not in 'nodes'"),
    ],
)
def test_json_graphs_that_do_not_fit(item: object, message: str) -> None:
    with pytest.raises(CorruptSample, match=message):
        from_json(item)


def test_edges_outside_the_graph_are_corrupt() -> None:
    source = GraphList(
        [from_json({"edges": [[0, 1]]}), from_json({"edges": [[0, 5]], "num_nodes": 2})]
    )
    reader = GraphReader.fit(source)
    with pytest.raises(
        CorruptSample, match=r"edge 0 joins 0 and 5, but node ids must lie in 0\.\.1"
    ):
        reader.decode(source[1])


def test_what_is_left_out_of_a_collection_is_counted() -> None:
    odd = from_json({"num_nodes": 4, "edges": [[0, 1], [1, 0], [0, 1], [2, 2]]})
    plain = from_json({"num_nodes": 2, "edges": [[0, 1]]})
    reader = GraphReader.fit(GraphList([odd, plain, from_json({"num_nodes": 1, "edges": []})]))
    assert reader.spec["met"] == {"self-loops": 1, "repeated edges": 1, "nodes without an edge": 3}


def test_networkx_attributes_must_be_complete() -> None:
    graph = nx.path_graph(3)
    graph.nodes[1]["mass"] = 1.0
    with pytest.raises(CorruptSample, match="node 0 has no 'mass'"):
        from_networkx(graph)
    for node in graph:
        graph.nodes[node]["mass"] = [float(node), 1.0]
    raw = from_networkx(graph)
    assert raw.attribute_names == ("mass.0", "mass.1")
    assert raw.attributes is not None
    assert np.array_equal(raw.attributes, np.array([[0, 1], [1, 1], [2, 1]], dtype=np.float32))


def test_labels_may_be_missing_and_minus_one_is_not_a_class() -> None:
    graphs = [nx.path_graph(3 + i) for i in range(3)]
    source = GraphList(graphs, labels=["b", None, "a"])
    assert [source[i].label for i in range(3)] == [1, None, 0]
    with pytest.raises(UserError, match="write -1 and 1 as 0 and 1"):
        GraphList(graphs, labels=[1, -1, 1])


def test_graphs_in_memory_carry_their_labels() -> None:
    graphs = [nx.path_graph(3), nx.cycle_graph(4)]
    graphs[0].graph["label"], graphs[1].graph["label"] = "path", "cycle"
    source = GraphList(graphs)
    assert source.classes == ["cycle", "path"]
    assert [source[i].label for i in range(2)] == [1, 0]
    assert source.fingerprint() != GraphList(graphs[:1]).fingerprint()
    with pytest.raises(UserError, match="labels: got 1 for 2 graphs"):
        GraphList(graphs, labels=[0])
    with pytest.raises(UserError, match="str is not a graph"):
        GraphList(["graph"])[0]


def test_the_atlas_holds_every_small_graph() -> None:
    source = open_graphs("networkx:atlas")
    assert len(source) == 1252
    assert source[0].payload.num_nodes == 1
    assert max(source[i].payload.num_nodes for i in (0, -1)) == 7


def test_missing_paths_and_wrong_formats(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        open_graphs(str(tmp_path / "nowhere"), format="tu")
    with pytest.raises(UserError, match="'tuu' is not known; did you mean 'tu'"):
        open_graphs(str(tmp_path), format="tuu")
    with pytest.raises(UserError, match=r"\.graphml"):
        open_graphs(str(tmp_path))


def test_edge_lists_in_text_files_need_to_be_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("0 1\n1 2\n")
    (tmp_path / "b.csv").write_text("0,1\n")
    source = open_graphs(str(tmp_path), format="edges")
    assert [raw_graph(source[i]).num_nodes for i in range(2)] == [3, 2]
