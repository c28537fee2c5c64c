"""Methods that only graphs have."""

from __future__ import annotations

METHODS = {
    "graphmae": "ssl_graph.methods.graphmae:GraphMAE",
    "graphmae2": "ssl_graph.methods.graphmae2:GraphMAE2",
    "attribute_masking": "ssl_graph.methods.attribute_masking:AttributeMasking",
    "context_prediction": "ssl_graph.methods.context_prediction:ContextPrediction",
    "dgi": "ssl_graph.methods.dgi:DGI",
    "infograph": "ssl_graph.methods.infograph:InfoGraph",
    "mvgrl": "ssl_graph.methods.mvgrl:MVGRL",
    "cca_ssg": "ssl_graph.methods.cca_ssg:CCASSG",
    "dsla": "ssl_graph.methods.dsla:DSLA",
    "scgc": "ssl_graph.methods.scgc:SCGC",
    "selftask": "ssl_graph.methods.selftask:SelfTask",
}
