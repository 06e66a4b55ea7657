/*
 * redact.h: error texts without secrets. Plain C but for jobq_redact(): also
 * built into a stand-alone test. What is a secret is said in docs/redaction.md.
 */
#ifndef JOBQ_REDACT_H
#define JOBQ_REDACT_H

#include <stddef.h>

/*
 * The text as it may be stored and shown: secrets are ***, and of the rest at
 * most 5,000 characters and a marker. palloc'd; in safetext.c.
 */
extern char *jobq_redact(const char *text);

/* ---- jobq.redact_patterns ---- */

#define JOBQ_REDACT_PATTERNS	32
#define JOBQ_REDACT_LENGTH		64

/* What the setting says, taken apart. */
typedef struct JobqRedactPatterns
{
	int			n;
	struct
	{
		char		text[JOBQ_REDACT_LENGTH + 1];
		int			length;
		int			is_name;	/* of a key whose value is secret */
		int			rest;		/* the rest of the word belongs to it */
	}			pattern[JOBQ_REDACT_PATTERNS];
} JobqRedactPatterns;

/* The patterns now in force. */
extern JobqRedactPatterns jobq_redact_patterns;

/* NULL, or a sentence about what is wrong with the setting. */
extern const char *jobq_redact_parse(const char *setting,
									 JobqRedactPatterns *patterns);

/* ---- the scanner: one pass, time in proportion to the length ---- */

/* Bytes that the output may need. */
extern size_t jobq_redact_room(size_t length);

/*
 * Write the text without secrets to `out` and return its length. Any server
 * encoding: in all of them the bytes of ASCII stand for nothing else.
 */
extern size_t jobq_redact_scan(const char *text, size_t length,
							   const JobqRedactPatterns *patterns, char *out);

#endif							/* JOBQ_REDACT_H */
