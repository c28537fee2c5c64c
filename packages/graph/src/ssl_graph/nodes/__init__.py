"""One big graph as data: records are its nodes, samples are neighbourhoods cut out on device."""
