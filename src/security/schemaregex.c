/*
 * schemaregex.c: patterns: PostgreSQL's advanced regular expressions, compiled
 * once, of bounded size and without what takes more than linear time. The same
 * everywhere: character classes are those of ASCII, whatever the locale.
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "regex/regexport.h"
#include "utils/memutils.h"

#include "security/schema.h"

/* What a character takes grows with the states, soon with their square. */
#define STATES_A_STEP	32
#define MANY_STATES		100

/* From 16 on the memory is palloc'd, which does no harm. */
static void
free_regex(void *arg)
{
	pg_regfree(&((JobqSchemaPattern *) arg)->regex);
}

static int
compile(regex_t *regex, const char *pattern, int len)
{
	pg_wchar   *wide = palloc(sizeof(pg_wchar) * (len + 1));
	int			n = pg_mb2wchar_with_len(pattern, wide, len);
	int			result = pg_regcomp(regex, wide, n, REG_ADVANCED | REG_NOSUB,
									C_COLLATION_OID);

	pfree(wide);
	if (result == REG_OKAY)
		return result;
	/* its message, "interrupted", would not be the cause */
	CHECK_FOR_INTERRUPTS();
	return result;
}

JobqSchemaPattern *
jobq_schema_pattern(const char *pattern, int len, const char **why)
{
	JobqSchemaPattern *made = palloc0(sizeof(JobqSchemaPattern));
	MemoryContextCallback *callback = palloc0(sizeof(MemoryContextCallback));
	char		message[100];
	int			result;
	int			states;

	if (pg_mbstrlen_with_len(pattern, len) > SCHEMA_MAX_PATTERN)
	{
		*why = psprintf("The regular expression may have %d characters at most.",
						SCHEMA_MAX_PATTERN);
		return NULL;
	}
	result = compile(&made->regex, pattern, len);
	if (result != REG_OKAY)
	{
		pg_regerror(result, &made->regex, message, sizeof(message));
		*why = psprintf("PostgreSQL does not take the regular expression: %s.",
						message);
		return NULL;
	}
	callback->func = free_regex;
	callback->arg = made;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);
	if (made->regex.re_info & (REG_UBACKREF | REG_ULOOKAROUND))
	{
		*why = "Back references, lookahead and lookbehind can take very long; they are not supported.";
		return NULL;
	}
	states = pg_reg_getnumstates(&made->regex);
	if (states > SCHEMA_MAX_STATES)
	{
		*why = psprintf("The regular expression makes an automaton of %d states; %d is the most.",
						states, SCHEMA_MAX_STATES);
		return NULL;
	}
	made->cost = 1 + states / STATES_A_STEP +
		states * states / (MANY_STATES * MANY_STATES);
	return made;
}

bool
jobq_schema_matches(JobqSchemaPattern *pattern, const char *s, int len)
{
	pg_wchar   *wide = palloc(sizeof(pg_wchar) * (len + 1));
	int			n = pg_mb2wchar_with_len(s, wide, len);
	int			result = pg_regexec(&pattern->regex, wide, n, 0, NULL, 0, NULL,
									0);
	char		message[100];

	pfree(wide);
	if (result == REG_OKAY || result == REG_NOMATCH)
		return result == REG_OKAY;
	CHECK_FOR_INTERRUPTS();
	pg_regerror(result, &pattern->regex, message, sizeof(message));
	elog(ERROR, "regular expression failed: %s", message);
}
