"""Methods of audio alone, one file each; `METHODS` is their registry."""

METHODS = {
    "ssast": "ssl_audio.methods.ssast:SSAST",
    "tera": "ssl_audio.methods.tera:TERA",
    "apc": "ssl_audio.methods.apc:APC",
    "cpc": "ssl_audio.methods.cpc:CPC",
    "wav2vec2": "ssl_audio.methods.wav2vec2:Wav2Vec2",
    "hubert": "ssl_audio.methods.hubert:HuBERT",
    "atst_frame": "ssl_audio.methods.atst_frame:ATSTFrame",
    "beats": "ssl_audio.methods.beats:BEATs",
    "beats_tokenizer": "ssl_audio.methods.beats_tokenizer:BEATsTokenizer",
}
