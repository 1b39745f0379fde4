; Colours for `.hift` files. The lists of words are generated from the schema (src/lang/schema.rs).

(comment) @comment
((comment) @comment.documentation
 (#match? @comment.documentation "^##"))

["hift" "import" "param" "let" "in"] @keyword

(param name: (identifier) @variable.parameter)
(binding name: (identifier) @constant)

(block name: (identifier) @type)
(block base: (identifier) @type)
(block kind: (identifier) @variable)
((block kind: (identifier) @keyword)
 (#any-of? @keyword
  "checkpoint" "data" "evaluate" "export" "generate" "groups" "model" "optimizer" "profile" "schedule"
  "tokenizer" "train"))

(entry key: (identifier) @variable)
(argument name: (identifier) @variable)
((entry key: (identifier) @property)
 (#any-of? @property
  "accumulate" "advance" "algorithm" "alpha" "always" "begin" "best" "beta1" "betas" "centered" "clip"
  "clip_threshold" "column" "config" "data" "decay" "decay_rate" "device" "dtype" "dwell" "end"
  "epochs" "eps" "every" "factors" "file" "format" "freeze" "from" "groups" "grow" "half" "holdout"
  "horizon" "index" "input" "keep" "label" "labels" "layer_decay" "loss_on" "mask" "max_length"
  "max_new_tokens" "memory_limit" "metrics" "micro_batch" "model" "momentum" "nesterov" "optimizer"
  "order" "pack" "path" "peak" "periods" "power" "precision" "prompt" "prompts" "rate" "recompute"
  "redraw" "response" "rotate" "scale_parameter" "schedule" "seed" "separator" "shape" "shuffle"
  "size" "source" "split" "states" "steps" "tail" "temperature" "text" "timescale" "to" "tokenizer"
  "too_long" "trust" "warmup" "weight_decay" "weights"))
((argument name: (identifier) @property)
 (#any-of? @property
  "accumulate" "advance" "algorithm" "alpha" "always" "begin" "best" "beta1" "betas" "centered" "clip"
  "clip_threshold" "column" "config" "data" "decay" "decay_rate" "device" "dtype" "dwell" "end"
  "epochs" "eps" "every" "factors" "file" "format" "freeze" "from" "groups" "grow" "half" "holdout"
  "horizon" "index" "input" "keep" "label" "labels" "layer_decay" "loss_on" "mask" "max_length"
  "max_new_tokens" "memory_limit" "metrics" "micro_batch" "model" "momentum" "nesterov" "optimizer"
  "order" "pack" "path" "peak" "periods" "power" "precision" "prompt" "prompts" "rate" "recompute"
  "redraw" "response" "rotate" "scale_parameter" "schedule" "seed" "separator" "shape" "shuffle"
  "size" "source" "split" "states" "steps" "tail" "temperature" "text" "timescale" "to" "tokenizer"
  "too_long" "trust" "warmup" "weight_decay" "weights"))

(word (identifier) @variable)
((word (identifier) @constant.builtin)
 (#any-of? @constant.builtin
  "accuracy" "adafactor" "adagrad" "adam" "adam8bit" "adam_mini" "adamw" "adamw8bit" "all" "auto"
  "bf16" "blocks" "bottom_up" "cosine" "cpu" "cut" "cycles" "device" "discard" "drop" "fail" "fp16"
  "fp32" "host" "importance" "joined" "lamb" "lars" "linear" "lion" "lion8bit" "loss" "never" "none"
  "per_cycle" "per_short_cycle" "per_step" "perplexity" "response" "rmsprop" "sgd" "sgdm" "split"
  "sqrt" "steps" "top_down" "warmup"))

(call function: (identifier) @function)
((call function: (identifier) @function.builtin)
 (#any-of? @function.builtin
  "all" "by_layer" "by_size" "classify" "constant" "cosine" "cosine_with_restarts" "cuda" "env"
  "instruct" "inverse_sqrt" "json" "linear" "mixed" "mixed_hi" "named" "polynomial" "random" "sample"
  "seed" "text" "tokens" "wsd"))

(number) @number
((amount unit: (unit) @type.builtin)
 (#any-of? @type.builtin
  "%" "B" "GB" "GiB" "KB" "KiB" "MB" "MiB" "TB" "TiB" "cycle" "cycles" "epoch" "epochs" "h" "min"
  "row" "rows" "step" "steps" "token" "tokens"))

(text) @string
(escape) @escape
(hole "${" @punctuation.special "}" @punctuation.special)
(boolean) @boolean

["=" ".." "+" "-" "*" "/" "|" ":"] @operator
["," ] @punctuation.delimiter
["(" ")" "[" "]" "{" "}"] @punctuation.bracket
