// A word behind a number, on the same line, is its unit, unless it begins something of its own: in
// `epochs = 3 seed = 1` the word `seed` is the next key. The rules `unit` and `limit_unit` of ../../hift.pest.

#include "tree_sitter/parser.h"

enum Token { UNIT, LIMIT_UNIT };

static bool begins_name(int32_t c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

static bool is_letter(int32_t c) { return begins_name(c) || (c >= '0' && c <= '9') || c == '-'; }

static bool is_line_end(int32_t c) { return c == '\n' || c == '\r'; }

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
  int32_t first = lexer->lookahead, second = 0;
  unsigned length = 0;
  while (is_letter(lexer->lookahead)) {
    if (++length == 2) second = lexer->lookahead;
    lexer->advance(lexer, false);
  }
  lexer->mark_end(lexer);
  if (length == 2 && first == 'i' && second == 'n') return false;
  if (limit) return true;
  for (;;) {
    if (lexer->lookahead == '#') {
      while (!is_line_end(lexer->lookahead) && !lexer->eof(lexer)) lexer->advance(lexer, false);
    } else if (lexer->lookahead == ' ' || lexer->lookahead == '\t' || is_line_end(lexer->lookahead)) {
      lexer->advance(lexer, false);
    } else {
      break;
    }
  }
  return lexer->lookahead != '=' && lexer->lookahead != '{' && lexer->lookahead != '(';
}
