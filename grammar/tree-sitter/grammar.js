/**
 * The language of `.hift` files for editors. It follows ../hift.pest rule by rule and is held to it by
 * tests/grammars.rs. Whether a word behind a number is its unit depends on what follows: src/scanner.c decides.
 */

/// <reference types="tree-sitter-cli/dsl" />
// @ts-check

module.exports = grammar({
  name: "hift",

  word: $ => $.identifier,

  extras: $ => [/[ \t\r\n\uFEFF]/, $.comment],

  externals: $ => [$.unit, $._limit_unit],

  rules: {
    file: $ => seq(optional($.header), repeat(choice($.import, $.param, $.binding, $.block))),

    header: $ => seq("hift", field("version", $.number)),

    import: $ => seq("import", field("path", $.text), optional($.record)),

    param: $ => seq(
      "param", field("name", $._name),
      optional(seq(":", field("type", $.types))),
      optional(seq("in", field("range", $.range))),
      optional(seq("=", field("value", $._value))),
    ),
    types: $ => seq($._choice, repeat(seq("|", $._choice))),
    _choice: $ => choice(alias($.limit, $.amount), $.number, $.text, $.word),
    range: $ => choice(seq($._bound, "..", optional($._bound)), seq("..", optional($._bound))),
    _bound: $ => choice(alias($.limit, $.amount), $.number),
    limit: $ => seq($.number, field("unit", alias($._limit_unit, $.unit))),

    binding: $ => seq("let", field("name", $._name), "=", field("value", $._value)),

    block: $ => seq(
      field("kind", $._name),
      optional(seq(field("name", $._name), optional(seq("=", field("base", $._name))))),
      "{", repeat(choice($.entry, $.block)), "}",
    ),

    entry: $ => seq(field("key", $._name), "=", field("value", $._value)),

    _value: $ => choice($.sum, $.product, $._factor),
    sum: $ => prec.left(1, seq($._value, choice("+", alias($._minus, "-")), $._value)),
    product: $ => prec.left(2, seq($._value, choice("*", "/"), $._value)),
    _factor: $ => choice(
      $.negative, $.group, $.amount, $.number, $.text, $.boolean, $.call, $.word, $.list, $.record,
    ),
    negative: $ => prec(3, seq(choice("-", alias($._minus, "-")), choice($.group, $.call, $.word))),
    group: $ => seq("(", $._value, ")"),

    amount: $ => seq($.number, field("unit", $.unit)),
    number: _ => /-?[0-9](_?[0-9])*(\.[0-9](_?[0-9])*)?([eE][+-]?[0-9](_?[0-9])*)?/,

    text: $ => seq(
      '"',
      repeat(choice($.escape, $.hole, $._piece)),
      token.immediate('"'),
    ),
    escape: _ => token.immediate(/\\(u\{[0-9a-fA-F]+\}|[ntr"\\$])/),
    hole: $ => seq(token.immediate("${"), $._value, "}"),
    _piece: _ => token.immediate(prec(-1, /[^"\\$\r\n]+|\$/)),

    boolean: _ => choice("true", "false"),

    call: $ => seq(
      field("function", $._name),
      "(", repeat(seq(choice($.argument, $._value), optional(","))), ")",
    ),
    argument: $ => seq(field("name", $._name), "=", field("value", $._value)),

    // A word in front of `(` is a call.
    word: $ => prec(-1, $._name),

    list: $ => seq("[", repeat(seq($._value, optional(","))), "]"),

    record: $ => seq("{", repeat(seq($.entry, optional(","))), "}"),

    _name: $ => $.identifier,
    identifier: _ => /[A-Za-z_][A-Za-z0-9_-]*/,

    // A minus between two values has white space behind it: `-2` is a number and `a-b` a name.
    _minus: _ => /-[ \t\r\n]/,

    comment: _ => token(/#[^\r\n]*/),
  },
});
