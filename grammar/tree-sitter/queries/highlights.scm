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
  "accumulate" "advance" "algorithm" "begin" "best" "betas" "clip" "column" "config" "data" "device"
  "dtype" "dwell" "end" "epochs" "eps" "every" "file" "format" "freeze" "from" "groups" "holdout"
  "horizon" "index" "input" "keep" "label" "labels" "loss_on" "mask" "max_length" "max_new_tokens"
  "memory_limit" "metrics" "micro_batch" "model" "momentum" "optimizer" "order" "pack" "path" "peak"
  "precision" "prompt" "prompts" "rate" "recompute" "redraw" "response" "rotate" "schedule" "seed"
  "separator" "shuffle" "size" "source" "split" "states" "steps" "tail" "temperature" "to" "tokenizer"
  "too_long" "warmup" "weight_decay" "weights"))
((argument name: (identifier) @property)
 (#any-of? @property
  "accumulate" "advance" "algorithm" "begin" "best" "betas" "clip" "column" "config" "data" "device"
  "dtype" "dwell" "end" "epochs" "eps" "every" "file" "format" "freeze" "from" "groups" "holdout"
  "horizon" "index" "input" "keep" "label" "labels" "loss_on" "mask" "max_length" "max_new_tokens"
  "memory_limit" "metrics" "micro_batch" "model" "momentum" "optimizer" "order" "pack" "path" "peak"
  "precision" "prompt" "prompts" "rate" "recompute" "redraw" "response" "rotate" "schedule" "seed"
  "separator" "shuffle" "size" "source" "split" "states" "steps" "tail" "temperature" "to" "tokenizer"
  "too_long" "warmup" "weight_decay" "weights"))

(word (identifier) @variable)
((word (identifier) @constant.builtin)
 (#any-of? @constant.builtin
  "accuracy" "adamw" "all" "auto" "bf16" "blocks" "bottom_up" "cpu" "cut" "cycles" "device" "discard"
  "drop" "fail" "fp16" "fp32" "host" "joined" "loss" "none" "per_cycle" "per_step" "perplexity"
  "response" "sgd" "sgdm" "split" "steps" "top_down"))

(call function: (identifier) @function)
((call function: (identifier) @function.builtin)
 (#any-of? @function.builtin
  "all" "by_layer" "constant" "cosine" "cuda" "env" "instruct" "json" "linear" "named" "random" "seed"
  "text" "tokens"))

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
