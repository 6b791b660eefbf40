from burnish.models.llama import LlamaShape

SHAPE = LlamaShape(
    vocabulary=2048, width=192, layers=4, heads=6, kv_heads=6, feed_forward=512, context=512
)
