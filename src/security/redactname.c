/*
 * redactname.c: which names have secrets for values, however they are written:
 * DB_PASSWORD, dbPassword, x-api-key, client secret. Plain C.
 */
#include "security/redactscan.h"

#define NAME(text)	text, sizeof(text) - 1

/* How a name may end, without its "_", "-", "." and blanks. */
static const struct
{
	const char *end;
	size_t		length;
	JobqNameKind	kind;
	bool		whole;			/* another word does not run into it */
}			names[] = {
	{NAME("password"), NAME_PASSWORD, false},
	{NAME("passwd"), NAME_PASSWORD, false},
	{NAME("passphrase"), NAME_PASSWORD, false},
	{NAME("pwd"), NAME_PASSWORD, true},
	{NAME("passwordhash"), NAME_PASSWORD, false},
	{NAME("passwordconfirm"), NAME_PASSWORD, false},
	{NAME("passwordconfirmation"), NAME_PASSWORD, false},
	{NAME("secret"), NAME_SECRET, false},
	{NAME("secretkey"), NAME_SECRET, false},
	{NAME("secretkeybase"), NAME_SECRET, false},
	{NAME("secretaccesskey"), NAME_SECRET, false},
	{NAME("secretvalue"), NAME_SECRET, false},
	{NAME("secretstring"), NAME_SECRET, false},
	{NAME("token"), NAME_SECRET, false},
	{NAME("tokenvalue"), NAME_SECRET, false},
	{NAME("apikey"), NAME_SECRET, false},
	{NAME("accesskey"), NAME_SECRET, false},
	{NAME("accountkey"), NAME_SECRET, false},
	{NAME("authkey"), NAME_SECRET, false},
	{NAME("privatekey"), NAME_SECRET, false},
	{NAME("encryptionkey"), NAME_SECRET, false},
	{NAME("signingkey"), NAME_SECRET, false},
	{NAME("masterkey"), NAME_SECRET, false},
	{NAME("sharedkey"), NAME_SECRET, false},
	{NAME("bearer"), NAME_SECRET, true},
	{NAME("credential"), NAME_SECRET, false},
	{NAME("credentials"), NAME_SECRET, false},
	{NAME("amzsignature"), NAME_SECRET, false},
	{NAME("jsessionid"), NAME_SECRET, false},
	{NAME("phpsessid"), NAME_SECRET, false},
	{NAME("authorization"), NAME_HEADER, false},
	{NAME("cookie"), NAME_HEADER, false},
	{NAME("pass"), NAME_WEAK, true},
	{NAME("auth"), NAME_WEAK, true},
	{NAME("sig"), NAME_WEAK, true},
	{NAME("identifiedby"), NAME_SQL, true},
};

/* Where `end` begins if the text before `to` ends so, else `to`. */
static size_t
match_back(const JobqScan *s, size_t to, const char *end, size_t length)
{
	size_t		i = to;
	bool		skipped = false;

	while (length > 0)
	{
		char		c = jobq_before(s, i);

		if (i > s->floor && jobq_lower(c) == jobq_lower(end[length - 1]))
		{
			length--;
			i--;
			skipped = false;
		}
		else if (i > s->floor && i < to && !skipped &&
				 (c == '_' || c == '-' || c == '.' || c == ' '))
		{
			i--;
			skipped = true;
		}
		else
			return to;
	}
	return i;
}

static bool
begins_part(const JobqScan *s, size_t i)
{
	char		before = jobq_before(s, i);

	return !jobq_is_alnum(before) ||
		(jobq_is_lower(before) && jobq_is_upper(s->text[i]));
}

static JobqNameKind
find_own(const JobqScan *s, size_t to, size_t *core)
{
	for (int i = 0; i < s->patterns->n; i++)
	{
		char		plain[JOBQ_REDACT_LENGTH + 1];
		size_t		n = 0;

		if (!s->patterns->pattern[i].is_name)
			continue;
		for (const char *c = s->patterns->pattern[i].text; *c != '\0'; c++)
		{
			if (jobq_is_alnum(*c))
				plain[n++] = *c;
		}
		*core = match_back(s, to, plain, n);
		if (*core < to && begins_part(s, *core))
			return NAME_PASSWORD;
	}
	return NAME_NONE;
}

/* Digits and "_" may follow it; of one's own names any letter may be last. */
void
jobq_scan_note_names(JobqScan *s)
{
	for (int c = 0; c < 128; c++)
		s->ends[c] = jobq_is_digit((char) c) || c == '_' ||
			(s->patterns->n > 0 && jobq_is_letter((char) c));
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		unsigned char last = (unsigned char) names[i].end[names[i].length - 1];

		s->ends[last] = true;
		s->ends[last - 'a' + 'A'] = true;
	}
}

JobqNameKind
jobq_scan_name(const JobqScan *s, size_t to, size_t *core)
{
	size_t		end = to;
	size_t		limit = to > 4 ? to - 4 : 0;
	char		last;

	while (to > limit && to > s->floor && jobq_is_digit(jobq_before(s, to)))
		to--;
	if (jobq_before(s, to) == '_' && to > s->floor)
		to--;
	last = jobq_lower(jobq_before(s, to));
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		size_t		n = names[i].length;

		if (names[i].end[n - 1] != last)
			continue;
		*core = match_back(s, to, names[i].end, n);
		if (*core < to && (!names[i].whole || begins_part(s, *core)))
			return names[i].kind;
	}
	return s->patterns->n > 0 ? find_own(s, end, core) : NAME_NONE;
}
