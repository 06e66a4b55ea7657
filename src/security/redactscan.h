/*
 * redactscan.h: what the files of the scanner share, redact*.c. Plain C; not
 * for others.
 */
#ifndef JOBQ_REDACTSCAN_H
#define JOBQ_REDACTSCAN_H

#include <stdbool.h>
#include <string.h>

#include "security/redact.h"

#define JOBQ_SCAN_NAME_MAX	64		/* bytes of a name */
#define JOBQ_WORD_MAX	20		/* bytes of a word that a list may have */
#define JOBQ_BLANKS_MAX	64		/* in a row, where a sign is looked for */

/*
 * One pass over a text. Looking back never goes beyond what was hidden last:
 * so a second pass finds what the first one has found, and nothing else.
 */
typedef struct JobqScan
{
	const char *text;
	size_t		length;
	size_t		at;				/* everything before has been dealt with */
	size_t		floor;			/* the end of what was hidden last */
	char	   *out;
	size_t		used;
	size_t		word_out;		/* where the present word begins, in out */
	size_t		colon;			/* behind the first one in it, 0 = there is none */
	size_t		url_end;		/* the end of a word that was looked through */
	size_t		url_sign;		/* its last @, or its end */
	size_t		value_from;		/* a value whose end was looked for last, */
	size_t		value_to;		/* that end, */
	size_t		value_stop;		/* and the end of the signs that follow it */
	const JobqRedactPatterns *patterns;
	bool		begins[256];	/* does a token begin with this byte, */
	bool		ends[256];		/* or a name end with it? */
} JobqScan;

static inline bool
jobq_is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static inline bool
jobq_is_upper(char c)
{
	return c >= 'A' && c <= 'Z';
}

static inline bool
jobq_is_lower(char c)
{
	return c >= 'a' && c <= 'z';
}

static inline bool
jobq_is_letter(char c)
{
	return jobq_is_upper(c) || jobq_is_lower(c);
}

static inline bool
jobq_is_alnum(char c)
{
	return jobq_is_letter(c) || jobq_is_digit(c);
}

static inline bool
jobq_is_name_char(char c)
{
	return jobq_is_alnum(c) || c == '_' || c == '-' || c == '.';
}

static inline bool
jobq_is_hex(char c)
{
	return jobq_is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static inline char
jobq_lower(char c)
{
	return jobq_is_upper(c) ? (char) (c + 'a' - 'A') : c;
}

/* Controls and blanks; all of ASCII's, so none of another character's bytes. */
static inline bool
jobq_is_space(char c)
{
	return (unsigned char) c <= ' ' || c == 0x7f;
}

static inline bool
jobq_is_quote(char c)
{
	return c == '"' || c == '\'' || c == '`';
}

/* The byte at i, or 0 behind the end; and the one before i. */
static inline char
jobq_peek(const JobqScan *s, size_t i)
{
	return i < s->length ? s->text[i] : '\0';
}

static inline char
jobq_before(const JobqScan *s, size_t i)
{
	if (i > s->floor)
		return s->text[i - 1];
	return s->floor > 0 ? '*' : '\n';
}

/* Does this stand at i, in whatever case? The word is in lower case. */
static inline bool
jobq_stands(const JobqScan *s, size_t i, const char *word)
{
	for (; *word != '\0'; word++, i++)
	{
		if (jobq_lower(jobq_peek(s, i)) != *word)
			return false;
	}
	return true;
}

static inline size_t
jobq_skip_blanks(const JobqScan *s, size_t i)
{
	size_t		limit = i + JOBQ_BLANKS_MAX;

	while (i < limit && (jobq_peek(s, i) == ' ' || jobq_peek(s, i) == '\t'))
		i++;
	return i;
}

/* Its six bits in base64, either alphabet; -1 = it is none of it. */
static inline int
jobq_base64(char c)
{
	if (jobq_is_upper(c))
		return c - 'A';
	if (jobq_is_lower(c))
		return c - 'a' + 26;
	if (jobq_is_digit(c))
		return c - '0' + 52;
	return c == '+' || c == '-' ? 62 : c == '/' || c == '_' ? 63 : -1;
}

/* ---- redact.c ---- */

/* Copy up to there; hide from there to there, at least a byte. */
extern void jobq_scan_copy(JobqScan *s, size_t to);
extern void jobq_scan_hide(JobqScan *s, size_t from, size_t to);

/* Hide what is in the output from there on, and the text up to there. */
extern void jobq_scan_hide_again(JobqScan *s, size_t out, size_t to);

/*
 * All that follow: true if something was hidden (or copied) and s->at is
 * behind it, else nothing has changed.
 */

/* ---- redactshape.c: a word begins at s->at ---- */
extern bool jobq_scan_word(JobqScan *s);
extern bool jobq_scan_token(JobqScan *s);
extern void jobq_scan_note_tokens(JobqScan *s);

/* ---- redacturl.c: at "://", and at "@" ---- */
extern bool jobq_scan_userinfo(JobqScan *s);
extern bool jobq_scan_source(JobqScan *s);

/* ---- redactpem.c: at "-" ---- */
extern bool jobq_scan_pem(JobqScan *s);

/* ---- redactkey.c: a name ends at s->at ---- */
extern bool jobq_scan_value(JobqScan *s);

/* ---- redactname.c ---- */

extern void jobq_scan_note_names(JobqScan *s);

typedef enum JobqNameKind
{
	NAME_NONE,
	NAME_PASSWORD,
	NAME_SECRET,
	NAME_HEADER,				/* its value has several words */
	NAME_WEAK,					/* a secret only where it looks like one */
	NAME_SQL					/* its value is in quotes, after a blank */
} JobqNameKind;

/*
 * What the name that ends at `to` is, a number at its end apart, and where the
 * part of it begins that makes it so.
 */
extern JobqNameKind jobq_scan_name(const JobqScan *s, size_t to,
								   size_t *core);

/* ---- redactword.c ---- */

/* Where a value without quotes ends that begins at `from`; remembers it. */
extern size_t jobq_scan_word_end(JobqScan *s, size_t from);

/* The same for one of several words; `end` ends it, too, unless it is 0. */
extern size_t jobq_scan_line_end(const JobqScan *s, size_t from, char end);

/* Is it nothing to hide: masked already, a placeholder, null? */
extern bool jobq_scan_is_blank(const JobqScan *s, size_t from, size_t to);

/* A word that in messages stands where a value would. */
extern bool jobq_scan_is_common(const JobqScan *s, size_t from, size_t to);

/* Letters, digits and "_", no digit first. */
extern bool jobq_scan_is_identifier(const JobqScan *s, size_t from, size_t to);

/* Too long, or too mixed, to be a word; and what may be one. */
extern bool jobq_scan_looks_secret(const JobqScan *s, size_t from, size_t to);
extern bool jobq_scan_looks_like_prose(const JobqScan *s, size_t from,
									   size_t to);

/* Is one of the words there? None is longer than JOBQ_WORD_MAX. */
extern bool jobq_scan_is_one_of(const JobqScan *s, size_t from, size_t to,
								const char *const *words, size_t n);
extern bool jobq_scan_all_are(const JobqScan *s, size_t from, size_t to,
							  const char *set);

#define JOBQ_IS_ONE_OF(s, from, to, words) \
	jobq_scan_is_one_of(s, from, to, words, \
						sizeof(words) / sizeof((words)[0]))

#endif							/* JOBQ_REDACTSCAN_H */
