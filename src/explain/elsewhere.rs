//! The codes of models, weights, data, runs and the command line. They are about files and machines, which no example
//! of a pipeline can show.

use super::{Explanation, told};

pub(super) const TABLE: &[Explanation] = &[
    told(
        "model::config",
        "A model's `config.json` is not one that can be used.",
        "A number is missing or does not fit the others, or a setting asks for something that is not computed here. The message names it. Take the file that came with the weights, unchanged.",
    ),
    told(
        "model::task",
        "The model cannot be trained for the task that is asked for.",
        "A task needs a head that Hugging Face has a class for, such as `BertForTokenClassification`, so that what is exported loads there. Not every family has every head, and classes must be two or more, each with a name of its own.",
    ),
    told(
        "model::unknown_family",
        "The model is of a family that is not known here.",
        "How a model computes is described once for each family. `model_type` in `config.json` names the family; the message lists those that are known.",
    ),
    told(
        "weights::broken",
        "A file with weights is damaged or incomplete.",
        "Mostly a download was cut off, or a large file was stored as a pointer to elsewhere. Download it again. Of a `pytorch_model.bin`, which is a Python pickle, only tensors are read and nothing is run: one that says more than `torch.save` writes for a dictionary of tensors is refused.",
    ),
    told(
        "weights::dtype",
        "Weights are stored as numbers that cannot be trained.",
        "Weights of 32-bit, 16-bit and brain floats are read. Quantised weights are not: full fine-tuning changes every weight, so it needs them as they were.",
    ),
    told(
        "weights::missing_shard",
        "A file that the index of the weights names is not there.",
        "Large models come in several files, listed in `model.safetensors.index.json` (or `pytorch_model.bin.index.json`). All of them must lie beside it.",
    ),
    told(
        "weights::missing_tensor",
        "The weights lack a tensor that the model needs.",
        "`config.json` and the weights belong to different models, or the checkpoint holds only a part, such as an adapter.",
    ),
    told(
        "weights::none",
        "A directory holds no weights.",
        "`weights = \"DIR\"` wants `model.safetensors`, or its shards with their index, beside `config.json`; or, as older checkpoints have it, `pytorch_model.bin`. To start without any, write `weights = random(\"config.json\")`.",
    ),
    told(
        "weights::unreadable",
        "A file with weights cannot be opened.",
        "The system's own words are in the message: mostly the file may not be read, or a disk is gone.",
    ),
    told(
        "weights::wrong_shape",
        "A tensor has another shape than the model needs.",
        "`config.json` and the weights belong to different models, or the vocabulary was enlarged in one and not in the other.",
    ),
    told(
        "engine::out_of_memory",
        "The system refused memory.",
        "A limit (`ulimit -v`, a container's) or the machine itself has no more. The message says what was being done. What is on the disk is whole, and the same command goes on from the last checkpoint. Hooks are not called: that would need memory.",
    ),
    told(
        "data::absent_cell",
        "A row has no value in a column that is needed.",
        "The format names columns, and each row must have them. A row without would become an empty prompt or answer, and nobody would notice.",
    ),
    told(
        "data::cell",
        "A value in the data is of another type than its column needs.",
        "Texts are needed for `text` and `instruct`, lists of messages for `chat`, lists of whole numbers for `tokens`. The message names the line.",
    ),
    told(
        "data::arrow",
        "An arrow or parquet file is damaged, or is something else.",
        "Such files end with a table of what is in them, so one that was not written to its end cannot be read. Where rows in the middle of a file are damaged, the message names the row before them. Get the file again, or write it anew; and see whether the reader is the right one.",
    ),
    told(
        "data::chat_template",
        "A chat template cannot be read, or refuses a row.",
        "Templates may refuse what a model was not made for, such as a system message or two messages of the user in a row; the message has the template's own words. Change the rows, leave them out with `filter`, or write `chat(template = ...)` with a file of your own.",
    ),
    told(
        "data::csv",
        "A line of a table has not as many cells as there are columns.",
        "Mostly a cell holds the separator or a line break without standing in quotes, or quotes are text in this file: write `quotes = false`. For another separator write `separator = \";\"`; for a file whose first line names no columns, `columns = [...]`.",
    ),
    told(
        "data::filter",
        "A column that holds lists of numbers cannot be tested.",
        "`filter` compares texts, numbers and truth values. Name another column.",
    ),
    told(
        "data::messages",
        "The messages of a chat are not what they should be.",
        "A chat is a list of messages, each with a role (`role`, or `from`) and a text (`content`, or `value`). Other names of roles are said in `chat(roles = { \"name\" = \"user\" })`; tools are a list, or JSON text of one.",
    ),
    told(
        "data::no_dataset",
        "A folder is no dataset that can be read.",
        "`arrow(\"DIR\")` reads what `save_to_disk` of Hugging Face's datasets has written: arrow files, and a `state.json` that names them. A dataset whose rows were shuffled or selected keeps their order elsewhere; call `flatten_indices()` before saving it.",
    ),
    told(
        "data::no_mask",
        "It cannot be told which part of a chat carries a loss.",
        "The part that a message takes is found by writing out the messages before it and those up to it; both must be how the whole text begins. Some templates write earlier messages differently once later ones follow, for example without their thoughts. Rather than guess, hift refuses: learn only the last turn, or all, or bring a template that writes each message for itself.",
    ),
    told(
        "data::no_template",
        "The tokenizer has no chat template.",
        "Tokenizers of models that were made for chats bring one, in `tokenizer_config.json` or `chat_template.jinja` beside `tokenizer.json`. Name a file of your own with `chat(template = \"chat.jinja\")`.",
    ),
    told(
        "data::packed",
        "A packed file cannot be unpacked.",
        "It is damaged, or was not written to its end. Files packed with gzip and Zstandard are known by their first bytes, whatever their names are.",
    ),
    told(
        "data::pattern",
        "A pattern of paths cannot be read.",
        "`*` stands for any text, `?` for any character, `[a-c]` for one of these, and `**` for any folders.",
    ),
    told(
        "data::split",
        "A split is asked for that is not there, or none where there are several.",
        "A dataset with splits, such as `train` and `test`, is several datasets in one folder: say which is meant. Others have none to ask for.",
    ),
    told(
        "cli::not_calibrated",
        "A device could not be measured: `hift doctor --calibrate` trains a small model on each, and keeps what that took.",
        "What keeps it from that is said. Plans go on with what was measured before, or with a guess that says so.",
    ),
    told(
        "cli::cache",
        "Something in the token cache cannot be removed.",
        "The system's own words are in the message.",
    ),
    told(
        "cli::no_cache",
        "There is no token cache here.",
        "It lies in the folder that `HIFT_CACHE` names, else in `hift` in `XDG_CACHE_HOME`, else in `.cache/hift` in `HOME`. With an empty `HIFT_CACHE` nothing is kept.",
    ),
    told(
        "hub::cache",
        "The Hub's cache cannot be written.",
        "What is fetched is kept in `HF_HUB_CACHE`, else in `hub` in `HF_HOME`, else in `.cache/huggingface/hub` in `HOME`. The system's own words are in the message: mostly the disk is full, or the folder is another user's.",
    ),
    told(
        "hub::damaged",
        "A file that was fetched is not what the Hub says it is.",
        "Large files are held against their hash when they have come. What did not match is removed, and fetched anew the next time.",
    ),
    told(
        "hub::denied",
        "The Hub does not let a repository be read.",
        "It is private, or its terms were not accepted, or there is no repository of this name: the Hub says no more. A token is taken from `HF_TOKEN`, or from where `hf auth login` has put it.",
    ),
    told(
        "hub::interrupted",
        "Fetching was interrupted.",
        "What has come is kept; call the same command again.",
    ),
    told(
        "hub::no_cache",
        "There is no place for what is fetched from the Hub.",
        "Without `HOME`, as in some cron jobs, set `HF_HOME` or `HF_HUB_CACHE` to a folder.",
    ),
    told(
        "hub::no_file",
        "A repository has not the files that are needed.",
        "A model needs `config.json` and safetensors (or `pytorch_model.bin`), a tokenizer `tokenizer.json`, a dataset files with rows. The message lists what there is; another revision may have more.",
    ),
    told(
        "hub::no_repository",
        "There is no such repository on the Hub.",
        "Names are written as they stand in the address, such as `org/name`. Models and datasets are looked for in different places.",
    ),
    told(
        "hub::no_revision",
        "A repository has no such branch, tag or commit.",
        "Without `revision`, the branch `main` is meant.",
    ),
    told(
        "hub::offline",
        "Something is not in the Hub's cache and may not be fetched.",
        "`HF_HUB_OFFLINE` forbids touching the network, and an editor never waits for it. What was fetched once is found without it.",
    ),
    told(
        "hub::unreachable",
        "The Hub cannot be asked.",
        "There is no network, or `HF_ENDPOINT` names a server that does not answer. What was fetched once needs no network.",
    ),
    told(
        "data::not_fetched",
        "Rows on the Hub were not fetched yet.",
        "`hift check` looks at a file without its rows; with `--data` it fetches them, and so do `hift plan` and `hift run`.",
    ),
    told(
        "plan::not_fetched",
        "A model on the Hub was not fetched.",
        "This program was built without what it needs to run, and so without the way to the Hub. Fetch the model with another one, and name its directory.",
    ),
    told(
        "data::double_mark",
        "Rows begin or end with a mark that the tokenizer adds as well.",
        "The model would learn the mark twice in a row, which it never sees when it is used. Take the mark out of the text, or write `begin = none` or `end = none`.",
    ),
    told(
        "data::encode",
        "The tokenizer cannot encode a text.",
        "Its vocabulary lacks a character and has no token for unknown ones. Mostly it is not the tokenizer that belongs to the model.",
    ),
    told(
        "data::holdout",
        "The holdout leaves nothing to train on.",
        "As many rows are held out as there are. The message says how many rows can be used.",
    ),
    told(
        "data::interrupted",
        "Reading the data was interrupted.",
        "Nothing was written; call the same command again.",
    ),
    told(
        "data::json",
        "A line of the data is not JSON.",
        "A file holds one JSON object a line, or one array of objects. The message names line and column, and counts the lines that are broken as well.",
    ),
    told(
        "data::lengths_differ",
        "A row has not as many labels as tokens.",
        "Each token has its own label, or -100 where it is not learned. The two lists stand side by side and are as long as each other.",
    ),
    told(
        "data::little_trained",
        "Hardly any token carries a loss.",
        "Almost everything is masked or cut away, so the run would learn from very little. `hift inspect FILE` shows the rows as the model sees them, with what carries a loss in brackets.",
    ),
    told(
        "data::max_length",
        "`max_length` does not fit the model or its rows.",
        "It is longer than the model has positions, or so short that no row can teach anything: the next token is learned from at least one before it.",
    ),
    told(
        "data::missing_file",
        "A file with rows is not there.",
        "Paths in a pipeline start from the folder of the file that they stand in, not from where the command is called.",
    ),
    told(
        "data::no_column",
        "The data has no such column.",
        "The format or a template names a column that no row has. The message lists those that are there.",
    ),
    told(
        "data::no_response",
        "Rows are to be continued, and none can be.",
        "A `generate` stage with `data`, or `samples` of an evaluation, needs whole rows with a prompt before their response. Rows that were cut are left out; where rows were split, a piece does not say whether its prompt is whole.",
    ),
    told("data::no_rows", "A file holds no rows.", "It is empty, or holds nothing but white space."),
    told(
        "data::no_tokenizer",
        "A tokenizer's file is not there.",
        "`file` names a `tokenizer.json`, which lies beside the model's weights. Paths start from the pipeline file's folder.",
    ),
    told(
        "data::not_utf8",
        "A file with rows is not UTF-8 text.",
        "The message names the place. Save the file as UTF-8.",
    ),
    told(
        "data::nothing_trained",
        "No token carries a loss.",
        "Every row was dropped, cut before its response, or fully masked. Training would cost hours and change nothing, which is among the most common silent failures elsewhere. The message accounts for the rows, reason by reason.",
    ),
    told(
        "data::prompt",
        "A prompt is empty or fills all positions of the model.",
        "The first token is written behind at least one other, and there must be room for it.",
    ),
    told(
        "data::separator",
        "The separator between rows is empty.",
        "Without a separator each line is a row.",
    ),
    told(
        "data::template",
        "A template cannot be filled from the rows.",
        "It names a column that is not there or is no text. A brace itself is doubled, `{{`.",
    ),
    told(
        "data::token",
        "The vocabulary lacks a token that is to begin or end rows.",
        "A mark must be one token of the tokenizer's vocabulary, such as `</s>`.",
    ),
    told(
        "data::tokenizer_file",
        "A file is not a tokenizer.",
        "A `tokenizer.json` as Hugging Face writes it is needed. Other files of a tokenizer, such as `vocab.json`, cannot be used alone.",
    ),
    told(
        "data::too_long",
        "A row is longer than `max_length`, and `too_long = fail` says that this is an error.",
        "The message names the first such rows. `too_long = cut` takes off their end, `drop` leaves them out.",
    ),
    told(
        "data::unreadable",
        "A file with rows cannot be read.",
        "The system's own words are in the message.",
    ),
    told(
        "data::vocabulary",
        "The data holds a token that the model does not have.",
        "Ids end at the size of the model's vocabulary. Mostly the tokenizer belongs to another model, or tokens were added to it.",
    ),
    told(
        "engine::failed",
        "An operation of the tensor library failed.",
        "What was done before the last checkpoint is kept. If memory ran out, lower `micro_batch` or `max_length`.",
    ),
    told(
        "run::another_run",
        "The run directory holds a run of another plan.",
        "A run goes on only from checkpoints of the same plan: with another one, the result would be neither. `--dir` gives this run a folder of its own.",
    ),
    told(
        "run::broken_checkpoint",
        "A checkpoint is damaged.",
        "Each file of a checkpoint is held against its hash. One that does not match is not used, so that no run goes on from half of a checkpoint.",
    ),
    told(
        "run::diverged",
        "A loss is many times what it was before.",
        "`divergence { spike = ... }` asks for this: training that has left its course seldom finds back. The last checkpoint is from before; `then = roll_back()` goes on from there at a lower rate.",
    ),
    told(
        "run::export_gone",
        "What a finished run exported is no longer there, and no checkpoint is left to write it from.",
        "Start anew with `--resume never`.",
    ),
    told(
        "run::interrupted",
        "The run was interrupted, and what was done is kept.",
        "The same command goes on from the checkpoint, to the same bits that an uninterrupted run gives.",
    ),
    told(
        "run::locked",
        "Another run is at work in the run directory.",
        "Two runs in one directory would overwrite each other's checkpoints. Cron may call again: the exit code, 75, says so.",
    ),
    told(
        "engine::device_full",
        "The device has no room for a tensor of a step.",
        "The plan says what a step takes; what it cannot know is what other processes take meanwhile. A checkpoint is written where no weight had changed in that step yet; otherwise the last one is what the run goes on from.",
    ),
    told(
        "engine::device_lost",
        "The device, its driver or one of its libraries does not do its part, at the start or in the middle of a run.",
        "The message says which and why. The exit code is 69. Checkpoints on the disk are untouched: the same command goes on from the last one when the device answers.",
    ),
    told(
        "run::device_too_small",
        "The device of a stage has less memory than the plan foretells.",
        "`hift plan` says what makes up the peak, and what driver and libraries take beside the tensors. Less is needed with `memory_limit` and `recompute = auto`, with `weights = host`, or with a smaller `micro_batch`.",
    ),
    told(
        "run::device_taken",
        "The device of a stage has room for the plan, but others are using it.",
        "The message names the processes where the driver tells them. The exit code is 75: cron may call again.",
    ),
    told(
        "engine::scratch",
        "The disk has no room for what rests there, or has failed.",
        "States, masters and weights that rest on disk are in files without a name in the run directory, or in the folder of `--scratch`. Their blocks are taken when they are made, so that a disk that fills up later does no harm; `hift plan` says how much they take. They are the only copy of nothing that a checkpoint has, and go with the process in whatever way it ends.",
    ),
    told(
        "run::no_device",
        "The device that a stage asks for is not there.",
        "`device = auto` takes CUDA where this program has it and finds a device, and else the CPU.",
    ),
    told(
        "run::no_space",
        "There is less room on the disk than the run will need.",
        "The plan says how large checkpoints, exports and what rests on disk are. They are held against the free space before anything is trained, and once more before each checkpoint, so that a full disk costs no work.",
    ),
    told(
        "run::no_tokenizer",
        "A file of the tokenizer that an export needs is not there.",
        "An export is a directory that others can load, with the tokenizer beside the weights.",
    ),
    told(
        "run::not_a_run",
        "The folder named as run directory holds other things.",
        "A run directory is made new or holds a run. What lies in other folders is left alone.",
    ),
    told(
        "run::not_an_export",
        "The folder named for an export holds other things.",
        "An export replaces an export and nothing else.",
    ),
    told(
        "run::not_finite",
        "A loss or gradient is not a number.",
        "The weights have diverged: mostly the rate is too high, or a row is damaged. The last checkpoint is from before.",
    ),
    told(
        "run::not_texts",
        "The file named for texts holds something else.",
        "`to` of a `generate` stage replaces the texts of an earlier run and nothing else, least of all a file that the pipeline reads.",
    ),
    told(
        "run::nothing_to_resume",
        "`--resume must` finds no checkpoint.",
        "There was no run here, or it ended before its first checkpoint.",
    ),
    told(
        "run::read_back",
        "A checkpoint reads otherwise than it was written.",
        "Each checkpoint is read back before it takes its place and an older one goes. Where that fails, the disk or the way to it is failing; what was there before is untouched.",
    ),
    told(
        "run::unwritable",
        "A file of the run cannot be written.",
        "A disk is full, or a folder may not be written to. What was there before is untouched: files are written beside and renamed.",
    ),
    told(
        "cli::service",
        "A service or a line for cron cannot be written as asked.",
        "Cron calls at times of the clock, so an interval must divide the hour or the day; systemd's timers take any.",
    ),
    told(
        "cli::check",
        "Some of the checked files have mistakes.",
        "The line at the end counts the files; what is wrong stands above it. The exit code is that of the first file with mistakes.",
    ),
    told(
        "cli::no_code",
        "There is no such code to explain.",
        "`hift explain` without a code lists all of them.",
    ),
    told(
        "cli::unsound_device",
        "A GPU does not compute what the CPU does.",
        "`hift doctor` compares every kernel with the CPU's, over odd shapes and in every type of numbers. Those that differ by more than rounding are listed; what is trained there cannot be trusted.",
    ),
    told(
        "cli::no_data",
        "The pipeline has no data block of that name.",
        "`hift inspect FILE NAME` shows the rows of one data block, as a stage of the pipeline sees them.",
    ),
    told(
        "cli::no_group",
        "No group trains a layer of that name.",
        "`--program` takes a layer's name or a group's number, as `hift plan` lists them.",
    ),
    told(
        "cli::no_model",
        "A model's configuration cannot be read.",
        "`hift inspect` takes a Hugging Face directory, a `config.json` or a pipeline file.",
    ),
    told(
        "cli::not_a_model",
        "What is to be looked at is a file of rows.",
        "How a row is written out, tokenised and learned stands in a pipeline: `hift inspect FILE.hift DATA --rows 3` \
         shows the rows of its `data` block DATA as the model will see them.",
    ),
    told("cli::no_pipeline", "A pipeline file cannot be read.", "The system's own words are in the message."),
    told(
        "cli::no_stage",
        "Nothing in the file runs.",
        "The file has no `train`, `evaluate`, `generate` or `export` block, so it can only be imported by others.",
    ),
    told(
        "cli::not_utf8",
        "A pipeline file is not UTF-8 text.",
        "The message names the first byte that is wrong. Save the file as UTF-8.",
    ),
    told(
        "cli::stdout",
        "A result cannot be written to standard output.",
        "Mostly the disk is full that it is redirected to. A reader that goes away, as `head` does, is no failure.",
    ),
    told(
        "cli::unwritable",
        "A file cannot be written.",
        "The file is as it was: what is new is written beside it first, and then takes its place.",
    ),
    told(
        "cli::fmt",
        "Some files could not be put into the layout of the language.",
        "Each is named above with its reason: it cannot be read, cannot be parsed, or cannot be written. The others have been formatted; a file that failed is as it was.",
    ),
    told(
        "cli::layout",
        "Files are not in the layout of the language.",
        "`hift fmt --check` writes nothing and ends with 65 if a file would change, so that a hook or a CI job can hold files to the layout. `hift fmt` writes it; meaning and comments stay.",
    ),
    told(
        "cli::man",
        "A manual page cannot be written.",
        "`hift man --dir DIR` writes a page for each command; the folder must be there or be one that can be made, with room in it.",
    ),
    told(
        "cli::new",
        "A starting file cannot be made from what was given.",
        "`hift new` never writes over a file, and needs to know the task, the model and the data, by arguments or by its questions on a terminal.",
    ),
    told(
        "cli::no_git",
        "Git cannot be started.",
        "`hift diff REV:PATH` reads a file of a revision with git. Install it, or name a file, a run directory or a plan.json.",
    ),
    told(
        "cli::no_params",
        "There is no pipeline file to which `--set` could apply.",
        "Both sides of the comparison are plans, in which params have been replaced already. Name a pipeline file.",
    ),
    told(
        "cli::no_revision",
        "Git does not know the revision, or it holds no such file.",
        "`REV:PATH` has the path from the top of the work tree; `REV:./PATH` has it from here.",
    ),
    told(
        "cli::no_run",
        "The folder is not a run directory.",
        "A run directory holds a `plan.json`. Name one, or a pipeline file or a plan.json.",
    ),
    told(
        "cli::not_a_plan",
        "The file is not the plan of a run.",
        "`hift diff` reads JSON as a run or `hift plan --json` writes it. The file is something else, or of another version of the program.",
    ),
    told(
        "data::class",
        "A row's label is none that the model knows.",
        "A classifier has the classes that `id2label` in its config.json names; labels are those names or their numbers. A model with one entry gives a number, and its labels are numbers.",
    ),
    told(
        "data::words",
        "A row that should be a list of words, or of their classes, is something else.",
        "For classes of words a row has two lists of one length, one with the words and one with the class of each. A sentence as one text has to be taken apart first: which letters belong to a word decides what its class is of.",
    ),
    told(
        "data::answer",
        "An answer is not where its row says that it is.",
        "What is learned is where in the text the answer begins and ends, so its place must be right to the character. `answer_start` counts characters from 0, as SQuAD does; bytes, tokens or a text that was cleaned later give other numbers.",
    ),
    told(
        "data::mask",
        "A mask is not one run of 1 followed by 0.",
        "Padding stands behind a row's tokens, so that a mask is 1 for the tokens and 0 from the first padding on. Another mask would make the model read padding as text.",
    ),
    told(
        "lock::broken",
        "The lock cannot be read as one.",
        "It is JSON with a line for each input. A merge may have spoiled it, or another version of the program wrote it; `hift lock FILE` writes it anew.",
    ),
    told(
        "lock::drift",
        "An input is not what the lock says it was.",
        "`--locked` refuses to train on anything else than what was locked, before anything is loaded. Each input that changed, appeared or went is named. If the change is meant, `hift lock FILE` accepts it.",
    ),
    told(
        "lock::interrupted",
        "Hashing was interrupted.",
        "Nothing was written. Call the same command again.",
    ),
    told(
        "lock::missing",
        "There is no lock beside the pipeline.",
        "`hift run --locked` needs one; `hift lock FILE` writes it.",
    ),
    told(
        "lock::not_ours",
        "The file in the lock's place belongs to another program.",
        "A lock is called as the pipeline is, with `.lock`. A file of that name that is no lock of this program is never written over; move it, or rename the pipeline.",
    ),
    told(
        "lock::unreadable",
        "An input cannot be read to be hashed.",
        "It is missing, or its permissions do not allow it. A lock holds every input, so none may be left out.",
    ),
    told(
        "lsp::protocol",
        "The conversation with the editor broke off.",
        "`hift lsp` speaks the Language Server Protocol over standard input and output and is started by an editor. What came was no message of that protocol, or the editor has gone.",
    ),
];
