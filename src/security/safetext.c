/*
 * safetext.c: the one way by which error texts and reasons reach tables and
 * callers: without secrets, and cut. What a secret is, redact.c decides.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "security/redact.h"

#define SHOWN_CHARS		5000
#define SCANNED_BYTES	(256 * 1024)
#define CUT_MARK		"... (truncated)"

JobqRedactPatterns jobq_redact_patterns;

/*
 * Of a text that was too long to be looked at, no word that may be shown is
 * left half.
 */
static size_t
drop_last_word(const char *text, size_t length)
{
	while (length > 0 && (unsigned char) text[length - 1] > ' ')
		length--;
	return length;
}

/* Was it cut before? */
static bool
ends_with_mark(const char *text, int length)
{
	int			mark = (int) strlen(CUT_MARK);
	int			rest = length - mark;

	return rest > 0 && memcmp(text + rest, CUT_MARK, mark) == 0 &&
		pg_mbcharcliplen(text, rest, SHOWN_CHARS) == rest;
}

/* There is room behind the text for the mark. */
static void
cut(char *text, int length, bool in_any_case)
{
	int			shown = pg_mbcharcliplen(text, length, SHOWN_CHARS);

	text[shown] = '\0';
	if (shown < length || in_any_case)
		memcpy(text + shown, CUT_MARK, sizeof(CUT_MARK));
}

char *
jobq_redact(const char *text)
{
	size_t		length = strlen(text);
	bool		clipped = length > SCANNED_BYTES;
	size_t		used;
	char	   *safe;

	if (clipped)
		length = (size_t) pg_mbcliplen(text, SCANNED_BYTES, SCANNED_BYTES);
	safe = palloc(jobq_redact_room(length) + sizeof(CUT_MARK));
	used = jobq_redact_scan(text, length, &jobq_redact_patterns, safe);
	safe[used] = '\0';
	if (clipped && used <= SHOWN_CHARS * MAX_MULTIBYTE_CHAR_LEN)
		used = drop_last_word(safe, used);
	if (!ends_with_mark(safe, (int) used))
		cut(safe, (int) used, clipped);
	return safe;
}
