// A word behind a number, on the same line, is its unit, unless it begins something of its own: in
// `epochs = 3 seed = 1` the word `seed` is the next key, and in `peak = 1e-5 train sft { }` the word `train` the next
// block. The rules `unit` and `limit_unit` of ../../hift.pest.

#include <string.h>

#include "tree_sitter/parser.h"

// From the schema (src/lang/schema).
static const char *const UNITS[] = {"%", "B", "GB", "GiB", "KB", "KiB", "MB", "MiB", "TB", "TiB", "cycle", "cycles", "epoch", "epochs", "h", "min", "row", "rows", "step", "steps", "token", "tokens"};

enum Token { UNIT, LIMIT_UNIT };

static bool begins_name(int32_t c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

static bool is_letter(int32_t c) { return begins_name(c) || (c >= '0' && c <= '9') || c == '-'; }

static bool is_line_end(int32_t c) { return c == '\n' || c == '\r'; }

static void skip_gap(TSLexer *lexer) {
  for (;;) {
    if (lexer->lookahead == '#') {
      while (!is_line_end(lexer->lookahead) && !lexer->eof(lexer)) lexer->advance(lexer, false);
    } else if (lexer->lookahead == ' ' || lexer->lookahead == '\t' || is_line_end(lexer->lookahead)) {
      lexer->advance(lexer, false);
    } else {
      return;
    }
  }
}

void *tree_sitter_hift_external_scanner_create(void) { return NULL; }
void tree_sitter_hift_external_scanner_destroy(void *payload) {}
unsigned tree_sitter_hift_external_scanner_serialize(void *payload, char *buffer) { return 0; }
void tree_sitter_hift_external_scanner_deserialize(void *payload, const char *buffer, unsigned length) {}

bool tree_sitter_hift_external_scanner_scan(void *payload, TSLexer *lexer, const bool *valid) {
  // Both are valid only while the parser recovers from a mistake.
  bool limit = valid[LIMIT_UNIT] && !valid[UNIT];
  while (lexer->lookahead == ' ' || lexer->lookahead == '\t') lexer->advance(lexer, true);
  lexer->result_symbol = limit ? LIMIT_UNIT : UNIT;
  if (lexer->lookahead == '%') {
    lexer->advance(lexer, false);
    lexer->mark_end(lexer);
    return true;
  }
  if (!begins_name(lexer->lookahead)) return false;
  char name[16] = "";
  for (unsigned length = 0; is_letter(lexer->lookahead); length++) {
    // A longer name is no unit that is known.
    if (length + 1 < sizeof name) name[length] = (char)lexer->lookahead;
    if (length + 1 == sizeof name) name[0] = '\0';
    lexer->advance(lexer, false);
  }
  lexer->mark_end(lexer);
  if (strcmp(name, "in") == 0) return false;
  if (limit) return true;
  bool known = false;
  for (unsigned i = 0; i < sizeof UNITS / sizeof UNITS[0]; i++) known |= strcmp(name, UNITS[i]) == 0;
  skip_gap(lexer);
  if (!known && begins_name(lexer->lookahead)) {
    while (is_letter(lexer->lookahead)) lexer->advance(lexer, false);
    skip_gap(lexer);
    return lexer->lookahead != '{';
  }
  return lexer->lookahead != '=' && lexer->lookahead != '{' && lexer->lookahead != '(';
}
