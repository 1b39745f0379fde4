; Colours for `.hift` files. The lists of words are generated from the schema (src/lang/schema).

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
  "checkpoint" "data" "divergence" "evaluate" "export" "generate" "groups" "hook" "model" "optimizer"
  "profile" "schedule" "tokenizer" "train"))

(entry key: (identifier) @variable)
(argument name: (identifier) @variable)
((entry key: (identifier) @property)
 (#any-of? @property
  "accumulate" "advance" "algorithm" "alpha" "always" "answers" "beams" "begin" "best" "beta1" "betas"
  "blocks" "by" "by_length" "centered" "clip" "clip_threshold" "column" "columns" "completion"
  "config" "context" "data" "decay" "decay_rate" "dedup" "device" "dtype" "dwell" "early_stopping"
  "end" "epochs" "eps" "every" "factors" "file" "files" "filter" "format" "freeze" "from" "groups"
  "grow" "half" "holdout" "horizon" "index" "input" "keep" "label" "labels" "layer_decay"
  "length_penalty" "loss_on" "mask" "max_length" "max_new_tokens" "memory_limit" "metrics"
  "micro_batch" "model" "momentum" "name" "names" "nesterov" "number" "on" "optimizer" "order" "pack"
  "path" "patience" "peak" "periods" "power" "precision" "prompt" "prompts" "question" "quotes" "rate"
  "recompute" "redraw" "references" "response" "result" "revision" "roles" "rotate" "rows" "run"
  "samples" "scale_parameter" "schedule" "seed" "separator" "shape" "shuffle" "size" "source" "spike"
  "split" "states" "steps" "stop" "stride" "tail" "task" "temperature" "template" "text" "texts"
  "tf32" "then" "times" "timescale" "to" "tokenizer" "tokens" "too_long" "tools" "top_k" "top_p"
  "trust" "warmup" "weight_decay" "weights"))
((argument name: (identifier) @property)
 (#any-of? @property
  "accumulate" "advance" "algorithm" "alpha" "always" "answers" "beams" "begin" "best" "beta1" "betas"
  "blocks" "by" "by_length" "centered" "clip" "clip_threshold" "column" "columns" "completion"
  "config" "context" "data" "decay" "decay_rate" "dedup" "device" "dtype" "dwell" "early_stopping"
  "end" "epochs" "eps" "every" "factors" "file" "files" "filter" "format" "freeze" "from" "groups"
  "grow" "half" "holdout" "horizon" "index" "input" "keep" "label" "labels" "layer_decay"
  "length_penalty" "loss_on" "mask" "max_length" "max_new_tokens" "memory_limit" "metrics"
  "micro_batch" "model" "momentum" "name" "names" "nesterov" "number" "on" "optimizer" "order" "pack"
  "path" "patience" "peak" "periods" "power" "precision" "prompt" "prompts" "question" "quotes" "rate"
  "recompute" "redraw" "references" "response" "result" "revision" "roles" "rotate" "rows" "run"
  "samples" "scale_parameter" "schedule" "seed" "separator" "shape" "shuffle" "size" "source" "spike"
  "split" "states" "steps" "stop" "stride" "tail" "task" "temperature" "template" "text" "texts"
  "tf32" "then" "times" "timescale" "to" "tokenizer" "tokens" "too_long" "tools" "top_k" "top_p"
  "trust" "warmup" "weight_decay" "weights"))

(word (identifier) @variable)
((word (identifier) @constant.builtin)
 (#any-of? @constant.builtin
  "accuracy" "adafactor" "adagrad" "adam" "adam8bit" "adam_mini" "adamw" "adamw8bit" "all" "auto"
  "best" "bf16" "bleu" "blocks" "bottom_up" "cosine" "cpu" "cut" "cut_left" "cycles" "device"
  "discard" "disk" "drop" "entity_f1" "entity_precision" "entity_recall" "exact_match" "f1" "fail"
  "failure" "first" "fp16" "fp32" "host" "importance" "interruption" "joined" "lamb" "lars" "last"
  "linear" "lion" "lion8bit" "loss" "macro_f1" "matthews" "never" "nist" "none" "pearson" "per_cycle"
  "per_short_cycle" "per_step" "perplexity" "question_answering" "regression" "response" "rmsprop"
  "rouge_1" "rouge_2" "rouge_l" "rows" "sgd" "sgdm" "spearman" "split" "sqrt" "steps" "stop" "success"
  "tokens" "top_down" "warmup"))

(call function: (identifier) @function)
((call function: (identifier) @function.builtin)
 (#any-of? @function.builtin
  "all" "arrow" "at_least" "at_most" "by_layer" "by_size" "chat" "classify" "completion" "constant"
  "cosine" "cosine_with_restarts" "csv" "cuda" "env" "hub" "instruct" "inverse_sqrt" "json" "linear"
  "mix" "mixed" "mixed_hi" "named" "not" "parquet" "polynomial" "question" "random" "roles"
  "roll_back" "sample" "seed" "sequence_classification" "text" "token_classification" "token_labels"
  "tokens" "wsd"))

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
