//! The codes of plans and estimates: what a pipeline asks of its model that the model does not have.

use super::{Explanation, shown, told};

/// The examples are for a model with the layers `embedding`, `block.0` to `block.3` and `head`, and with 128 positions.
pub(super) const TABLE: &[Explanation] = &[
    shown(
        "plan::batch_too_large",
        "A forward pass would take more tokens than is possible.",
        "Sequences times tokens are beyond 2^31. A batch of that size was surely not meant; `accumulate` makes a large batch out of small ones.",
        "train sft {\n    data = rows  tokenizer = bpe  model = llama\n    groups = layers  schedule = hift  optimizer = adamw\n    steps = 100  micro_batch = 100_000_000\n}",
        "train sft {\n    data = rows  tokenizer = bpe  model = llama\n    groups = layers  schedule = hift  optimizer = adamw\n    steps = 100  micro_batch = 4\n}",
    ),
    told(
        "plan::few_rows",
        "A step asks for more sequences than there are.",
        "`micro_batch` times `accumulate` is more than all rows together: every step would go through all of them, and the batch is smaller than the file says.",
    ),
    shown(
        "plan::group_too_large",
        "A group is to have more layers than the model.",
        "`by_layer(m)` makes groups of m layers in a row. What `freeze` takes out does not count.",
        "groups layers { split = by_layer(9) }",
        "groups layers { split = by_layer(2) }",
    ),
    told(
        "plan::large_holdout",
        "More sequences are held out than are left to train on.",
        "Held-out rows are measured on and never learned. A few percent give a steady figure.",
    ),
    shown(
        "plan::limit_below_weights",
        "The memory limit is below what the weights alone take.",
        "Weights rest on the device for the whole stage, so no setting can bring the peak under the limit. `hift plan` shows what the stage needs.",
        "train sft {\n    data = rows  tokenizer = bpe  model = llama\n    groups = layers  schedule = hift  optimizer = adamw\n    steps = 100  micro_batch = 1  memory_limit = 1 KiB\n}",
        "train sft {\n    data = rows  tokenizer = bpe  model = llama\n    groups = layers  schedule = hift  optimizer = adamw\n    steps = 100  micro_batch = 1  memory_limit = 1 GiB\n}",
    ),
    shown(
        "plan::long_answer",
        "More new tokens are asked for than the model has positions.",
        "A model reads its prompt and its answer in one row of positions. Where they end, the answer ends, so the limit that the file names is never reached.",
        "generate talk { from = sft  prompts = [\"a\"]  max_new_tokens = 5000 tokens }",
        "generate talk { from = sft  prompts = [\"a\"]  max_new_tokens = 32 tokens }",
    ),
    shown(
        "plan::long_warmup",
        "The warm-up is longer than the run.",
        "The rate moves once a cycle, so a warm-up in cycles lasts that many times all groups. Where the run ends before, the rate that the file names is never reached.",
        "schedule hift { rate = constant(1e-5, warmup = 90 cycles) }",
        "schedule hift { rate = constant(1e-5, warmup = 2 cycles) }",
    ),
    shown(
        "plan::missing_in_order",
        "A written order leaves out a group.",
        "Every group that is trained has its turn in each cycle. One that is not to be trained is named in `freeze`.",
        "schedule hift { order = [\"head\", \"block.3\", \"block.2\", \"block.1\", \"block.0\"]  rate = constant(1e-5) }",
        "schedule hift { order = [\"head\", \"block.3\", \"block.2\", \"block.1\", \"block.0\", \"embedding\"]  rate = constant(1e-5) }",
    ),
    shown(
        "plan::no_response",
        "Rows are to be continued, and nothing says from where.",
        "A `generate` stage with `data`, and `samples` while training evaluates, continue each row from where its response begins, and the response is the reference. So rows must have one (`instruct`, `chat`, or `tokens` with `labels`), and the tokenizer must learn it alone: `loss_on = response`.",
        "generate talk { from = sft  data = rows }",
        "generate talk { from = sft  prompts = [\"a\"] }",
    ),
    told(
        "plan::no_config",
        "A model's `config.json` cannot be read.",
        "The plan of a model needs nothing but its configuration: layers, sizes, positions. It lies in the directory that `weights` names, or is named by `random(...)`. Paths start from the pipeline file's folder.",
    ),
    told(
        "plan::no_holdout",
        "A stage evaluates, and no row is held out for it.",
        "The rows are so few, or the holdout is so small, that none is kept away from training.",
    ),
    shown(
        "plan::nothing_to_train",
        "Every layer is frozen.",
        "The patterns of `freeze` match all layers of the model, so no step would change anything.",
        "groups layers { split = by_layer(1)  freeze = [\"**\"] }",
        "groups layers { split = by_layer(1)  freeze = [\"embedding\"] }",
    ),
    shown(
        "plan::too_long",
        "Sequences are to be longer than the model has positions.",
        "A model is built for a largest number of positions; what lies beyond it was never learned. A smaller `max_length` also saves memory.",
        "tokenizer bpe { file = \"t.json\"  max_length = 5000 tokens }",
        "tokenizer bpe { file = \"t.json\"  max_length = 32 tokens }",
    ),
    shown(
        "plan::too_rare",
        "Something is to happen less often than the run is long.",
        "An interval in cycles or epochs comes to more steps than the run has, so the evaluation or checkpoint never comes.",
        "train sft {\n    data = rows  tokenizer = bpe  model = llama\n    groups = layers  schedule = hift  optimizer = adamw\n    steps = 100  micro_batch = 1\n    checkpoint { every = 900 cycles }\n}",
        "train sft {\n    data = rows  tokenizer = bpe  model = llama\n    groups = layers  schedule = hift  optimizer = adamw\n    steps = 100  micro_batch = 1\n    checkpoint { every = 9 cycles }\n}",
    ),
    shown(
        "plan::twice_in_order",
        "A written order names a group twice.",
        "A cycle visits every group once; that is what makes the rate the same for all of them.",
        "schedule hift { order = [\"head\", \"block.3\", \"block.2\", \"block.1\", \"block.0\", \"embedding\", \"head\"]  rate = constant(1e-5) }",
        "schedule hift { order = [\"head\", \"block.3\", \"block.2\", \"block.1\", \"block.0\", \"embedding\"]  rate = constant(1e-5) }",
    ),
    shown(
        "plan::ungrouped",
        "Some of the model's tensors are in no group.",
        "Named groups must hold every tensor, or `freeze` must name the rest: a layer that is forgotten would silently stay as it is.",
        "groups layers { split = { low = [\"embedding\"], high = [\"head\"] } }",
        "groups layers { split = { low = [\"embedding\"], high = [\"block.*\", \"head\"] } }",
    ),
    shown(
        "plan::unknown_layer",
        "The model has no layer or parameter of that name.",
        "Layers are called `embedding`, `block.0` and so on, and `head`; inside a block there are paths such as `block.*.attention`. `hift inspect` lists them all. A pattern that matches nothing is an error, since it was meant to match something.",
        "groups layers { split = by_layer(1)  freeze = [\"blok.0\"] }",
        "groups layers { split = by_layer(1)  freeze = [\"block.0\"] }",
    ),
    shown(
        "plan::untrained_groups",
        "The run ends before every group has had its turn.",
        "Groups train one after the other, a turn each. A run that is shorter than one cycle leaves the last ones as they were.",
        "train sft {\n    data = rows  tokenizer = bpe  model = llama\n    groups = layers  schedule = hift  optimizer = adamw\n    steps = 2  micro_batch = 1\n}",
        "train sft {\n    data = rows  tokenizer = bpe  model = llama\n    groups = layers  schedule = hift  optimizer = adamw\n    steps = 40  micro_batch = 1\n}",
    ),
    told(
        "plan::empty_turn",
        "A turn of a written order trains nothing.",
        "Each entry of `order` names the layers or groups that train in that turn. An empty one would be a step that changes nothing; remove it, or name what trains in it.",
    ),
    told(
        "plan::no_fixed_order",
        "Groups that grow or rotate need an order that stays.",
        "`grow` and `rotate` work along a queue of layers. An order that is drawn anew, sampled or measured has no such queue; write `bottom_up`, `top_down`, `random(seed)` or a list.",
    ),
    told(
        "plan::sample_too_large",
        "More groups are to be drawn for a turn than there are.",
        "`sample(seed, size)` draws `size` different groups for each turn, so there must be at least as many. Draw fewer, or make smaller groups.",
    ),
    told(
        "plan::metric",
        "A metric does not measure what the model does.",
        "Each metric compares one kind of result: classes, numbers, tagged words, answers or texts. The help names those that fit the model's task; texts are measured where they are written, in a `generate` stage.",
    ),
    told(
        "plan::task",
        "What the pipeline asks for does not go with the model's task.",
        "A language model predicts tokens and a classifier gives each row a class or a number. Rows, packing, metrics and stages must fit: a classifier writes no text, and a language model has no use for a class.",
    ),
    told(
        "plan::too_many_sets",
        "A turn may train more different sets of groups than can be planned.",
        "The estimate names the peak of every set that a turn can train, so all of them are planned. Drawing two of forty groups makes 780 sets; drawing ten makes 847 million. Draw fewer groups, or make larger ones.",
    ),
    told(
        "plan::turns_of_groups",
        "An order that says what trains together meets a split that joins.",
        "`order = [[\"attention\", \"norms\"], ...]` itself says which groups share a turn. What `split` makes must then be single groups, by name or of one layer, with nothing left to join.",
    ),
    told(
        "estimate::over_limit",
        "A stage needs more memory than its limit.",
        "The peak is known before anything is loaded. `hift plan` shows in which group's step it comes, and what makes it up; smaller batches, shorter sequences and `recompute = blocks` lower it.",
    ),
];
