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
 (#any-of? @keyword KINDS))

(entry key: (identifier) @variable)
(argument name: (identifier) @variable)
((entry key: (identifier) @property)
 (#any-of? @property KEYS))
((argument name: (identifier) @property)
 (#any-of? @property KEYS))

(word (identifier) @variable)
((word (identifier) @constant.builtin)
 (#any-of? @constant.builtin WORDS))

(call function: (identifier) @function)
((call function: (identifier) @function.builtin)
 (#any-of? @function.builtin FUNCTIONS))

(number) @number
((amount unit: (unit) @type.builtin)
 (#any-of? @type.builtin UNITS))
(amount "%" @type.builtin)

(text) @string
(escape) @escape
(hole "${" @punctuation.special "}" @punctuation.special)
(boolean) @boolean

["=" ".." "+" "-" "*" "/" "|" ":"] @operator
["," ] @punctuation.delimiter
["(" ")" "[" "]" "{" "}"] @punctuation.bracket
