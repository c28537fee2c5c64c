from ssl_core.api import evaluate, export, finetune, load, resume
from ssl_core.bound import adapt, build_recipe, plan, pretrain
from ssl_graph.domain import GRAPH
from ssl_graph.evaluation.measure import measure
from ssl_graph.graph import Graph, GraphBatch
from ssl_graph.methods.graphmae import GraphMAE
from ssl_graph.nodes.files.single import table_of as node_table
from ssl_graph.nodes.link_split import split_links
from ssl_graph.nodes.source import NodeSource
from ssl_graph.samples import write_samples
from ssl_graph.sources.memory import GraphList

__all__ = [
    "GRAPH",
    "Graph",
    "GraphBatch",
    "GraphList",
    "GraphMAE",
    "NodeSource",
    "adapt",
    "build_recipe",
    "evaluate",
    "export",
    "finetune",
    "load",
    "measure",
    "node_table",
    "plan",
    "pretrain",
    "resume",
    "split_links",
    "write_samples",
]
__version__: str
