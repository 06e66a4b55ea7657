/*
 * redactshape.c: secrets that begin in a way of their own: keys of services,
 * JWTs, hashes of passwords, cards, credentials after "Bearer" and "Basic", and
 * what the administrator has added. Plain C.
 */
#include "security/redactscan.h"

/* ---- tokens that begin in their own way ---- */

typedef enum CharSet
{
	SET_UPPER,					/* A-Z 0-9 */
	SET_ALNUM,
	SET_NAME,					/* alnum _ - */
	SET_DOTTED,					/* alnum _ - . */
	SET_HASH,					/* alnum . / $ + = , : _ - */
	SET_PATH					/* alnum _ - / : */
} CharSet;

static const struct
{
	const char *begin;
	int			least;			/* characters after that */
	CharSet		set;
	bool		keep;			/* the beginning says where it belongs to */
}			tokens[] = {
	{"AKIA", 16, SET_UPPER, false},
	{"ASIA", 16, SET_UPPER, false},
	{"ghp_", 16, SET_ALNUM, false},
	{"gho_", 16, SET_ALNUM, false},
	{"ghu_", 16, SET_ALNUM, false},
	{"ghs_", 16, SET_ALNUM, false},
	{"ghr_", 16, SET_ALNUM, false},
	{"github_pat_", 16, SET_NAME, false},
	{"glpat-", 12, SET_DOTTED, false},
	{"gldt-", 12, SET_DOTTED, false},
	{"glrt-", 12, SET_DOTTED, false},
	{"glptt-", 12, SET_DOTTED, false},
	{"glcbt-", 12, SET_DOTTED, false},
	{"glsa_", 20, SET_NAME, false},
	{"xoxa-", 8, SET_NAME, false},
	{"xoxb-", 8, SET_NAME, false},
	{"xoxc-", 8, SET_NAME, false},
	{"xoxd-", 8, SET_NAME, false},
	{"xoxe-", 8, SET_NAME, false},
	{"xoxe.", 8, SET_DOTTED, false},
	{"xoxo-", 8, SET_NAME, false},
	{"xoxp-", 8, SET_NAME, false},
	{"xoxr-", 8, SET_NAME, false},
	{"xoxs-", 8, SET_NAME, false},
	{"xapp-", 8, SET_NAME, false},
	{"hooks.slack.com/", 8, SET_PATH, true},
	{"discord.com/api/webhooks/", 8, SET_PATH, true},
	{"discordapp.com/api/webhooks/", 8, SET_PATH, true},
	{"api.telegram.org/bot", 8, SET_PATH, true},
	{"sk_live_", 8, SET_NAME, false},
	{"sk_test_", 8, SET_NAME, false},
	{"rk_live_", 8, SET_NAME, false},
	{"rk_test_", 8, SET_NAME, false},
	{"whsec_", 8, SET_HASH, false},
	{"AIza", 30, SET_NAME, false},
	{"ya29.", 8, SET_DOTTED, false},
	{"GOCSPX-", 16, SET_NAME, false},
	{"sk-ant-", 16, SET_NAME, false},
	{"sk-proj-", 16, SET_NAME, false},
	{"sk-", 40, SET_ALNUM, false},
	{"npm_", 30, SET_ALNUM, false},
	{"pypi-", 30, SET_NAME, false},
	{"dop_v1_", 32, SET_ALNUM, false},
	{"hf_", 30, SET_ALNUM, false},
	{"shpat_", 24, SET_ALNUM, false},
	{"shpss_", 24, SET_ALNUM, false},
	{"shpca_", 24, SET_ALNUM, false},
	{"shppa_", 24, SET_ALNUM, false},
	{"dckr_pat_", 16, SET_NAME, false},
	{"hvs.", 20, SET_NAME, false},
	{"hvb.", 20, SET_NAME, false},
	{"SG.", 32, SET_DOTTED, false},
	{"PMAK-", 24, SET_NAME, false},
	{"NRAK-", 20, SET_ALNUM, false},
	{"sq0atp-", 16, SET_NAME, false},
	{"sq0csp-", 16, SET_NAME, false},
	{"lin_api_", 20, SET_ALNUM, false},
	{"AGE-SECRET-KEY-1", 20, SET_UPPER, false},
	{"jq_", 32, SET_ALNUM, false},
	{"$2a$", 20, SET_HASH, false},
	{"$2b$", 20, SET_HASH, false},
	{"$2y$", 20, SET_HASH, false},
	{"$1$", 20, SET_HASH, false},
	{"$5$", 20, SET_HASH, false},
	{"$6$", 20, SET_HASH, false},
	{"$apr1$", 20, SET_HASH, false},
	{"$argon2", 20, SET_HASH, false},
	{"SCRAM-SHA-256$", 20, SET_HASH, false},
	{"eyJ", 10, SET_DOTTED, false}, /* JSON in base64: all parts of a JWT */
};

static bool
is_in(CharSet set, char c)
{
	if (jobq_is_alnum(c))
		return set != SET_UPPER || !jobq_is_lower(c);
	switch (set)
	{
		case SET_UPPER:
		case SET_ALNUM:
			return false;
		case SET_NAME:
			return c == '_' || c == '-';
		case SET_DOTTED:
			return c == '_' || c == '-' || c == '.';
		case SET_HASH:
			return c != '\0' && strchr("./$+=,:_-", c) != NULL;
		case SET_PATH:
			return c == '_' || c == '-' || c == '/' || c == ':';
	}
	return false;
}

/* A full stop after it ends a sentence. */
static size_t
without_stops(const JobqScan *s, size_t from, size_t to)
{
	while (to > from && strchr(".,:", s->text[to - 1]) != NULL)
		to--;
	return to;
}

void
jobq_scan_note_tokens(JobqScan *s)
{
	for (size_t i = 0; i < sizeof(tokens) / sizeof(tokens[0]); i++)
		s->begins[(unsigned char) tokens[i].begin[0]] = true;
}

bool
jobq_scan_token(JobqScan *s)
{
	if (!s->begins[(unsigned char) s->text[s->at]])
		return false;
	for (size_t i = 0; i < sizeof(tokens) / sizeof(tokens[0]); i++)
	{
		size_t		n;
		size_t		from;
		size_t		to;

		if (tokens[i].begin[0] != s->text[s->at])
			continue;
		n = strlen(tokens[i].begin);
		if (s->length - s->at < n ||
			memcmp(s->text + s->at, tokens[i].begin, n) != 0)
			continue;
		from = to = s->at + n;
		while (is_in(tokens[i].set, jobq_peek(s, to)))
			to++;
		to = without_stops(s, from, to);
		if (to - from < (size_t) tokens[i].least)
			continue;
		jobq_scan_hide(s, tokens[i].keep ? from : s->at, to);
		return true;
	}
	return false;
}

/* ---- patterns of the administrator ---- */

static bool
fits(char wanted, char c)
{
	if (wanted == '#')
		return jobq_is_digit(c);
	if (wanted == '?')
		return jobq_is_alnum(c);
	return wanted == c;
}

static bool
hide_pattern(JobqScan *s)
{
	for (int i = 0; i < s->patterns->n; i++)
	{
		const char *text = s->patterns->pattern[i].text;
		size_t		n = (size_t) s->patterns->pattern[i].length;
		size_t		to = s->at;

		if (s->patterns->pattern[i].is_name)
			continue;
		while (to - s->at < n && fits(text[to - s->at], jobq_peek(s, to)))
			to++;
		if (to - s->at < n)
			continue;
		if (s->patterns->pattern[i].rest)
		{
			size_t		end = to;

			while (jobq_is_name_char(jobq_peek(s, end)) ||
				   (end < s->length && strchr("+/=~", s->text[end]) != NULL))
				end++;
			end = without_stops(s, to, end);
			if (end == to)
				continue;
			to = end;
		}
		else if (jobq_is_alnum(jobq_peek(s, to)))
			continue;
		jobq_scan_hide(s, s->at, to);
		return true;
	}
	return false;
}

/* ---- UUIDs, which are none, and cards ---- */

/* So that no part of it is taken for something else. */
static bool
copy_uuid(JobqScan *s)
{
	static const char shape[] = "hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh";
	size_t		n = sizeof(shape) - 1;

	if (jobq_peek(s, s->at + 8) != '-')
		return false;
	for (size_t i = 0; i < n; i++)
	{
		char		c = jobq_peek(s, s->at + i);

		if (shape[i] == 'h' ? !jobq_is_hex(c) : c != '-')
			return false;
	}
	if (jobq_is_alnum(jobq_peek(s, s->at + n)))
		return false;
	jobq_scan_copy(s, s->at + n);
	return true;
}

#define CARD_MIN	13
#define CARD_MAX	19

static bool
is_card(const char *digits, int n)
{
	int			first = (digits[0] - '0') * 1000 + (digits[1] - '0') * 100 +
		(digits[2] - '0') * 10 + digits[3] - '0';
	int			sum = 0;
	bool		known;

	for (int i = 0; i < n; i++)
	{
		int			digit = digits[n - 1 - i] - '0';

		if (i % 2 == 1)
			digit = digit > 4 ? 2 * digit - 9 : 2 * digit;
		sum += digit;
	}
	switch (digits[0])
	{
		case '2':
			known = n == 16 && first >= 2221 && first <= 2720;
			break;
		case '3':
			known = digits[1] == '4' || digits[1] == '7' ? n == 15 :
				digits[1] == '0' || digits[1] == '6' || digits[1] >= '8' ?
				n >= 14 : digits[1] == '5' && n >= 16;
			break;
		case '4':
			known = n == 13 || n == 16 || n == 19;
			break;
		default:
			known = digits[0] == '5' ? n >= 16 || digits[1] != '4' :
				digits[0] == '6';
			break;
	}
	return known && sum % 10 == 0;
}

/*
 * Groups of four and more digits, the last may be shorter, with single blanks
 * or dashes between them; of several ends that would do, the last.
 */
static bool
hide_card(JobqScan *s)
{
	char		digits[CARD_MAX];
	int			n = 0;
	int			group = 0;
	size_t		to = 0;
	size_t		i = s->at;
	char		before = jobq_before(s, i);

	if (before == '_' ||
		(before == '.' && jobq_is_digit(jobq_before(s, i - 1))))
		return false;
	for (;; i++)
	{
		char		c = jobq_peek(s, i);

		if (jobq_is_digit(c))
		{
			if (n == CARD_MAX)
				break;
			digits[n++] = c;
			group++;
			continue;
		}
		if (n >= CARD_MIN && !jobq_is_letter(c) && c != '_' &&
			!(c == '.' && jobq_is_digit(jobq_peek(s, i + 1))) &&
			is_card(digits, n))
			to = i;
		if ((c != ' ' && c != '-') || group < 4 ||
			!jobq_is_digit(jobq_peek(s, i + 1)))
			break;
		group = 0;
	}
	if (to == 0)
		return false;
	jobq_scan_hide(s, s->at, to);
	return true;
}

/* ---- credentials after the name of their scheme ---- */

/* Not what follows in a sentence, nor the parameters of a challenge. */
static bool
hide_bearer(JobqScan *s)
{
	size_t		after = s->at + 6;
	size_t		from = jobq_skip_blanks(s, after);
	size_t		to;
	size_t		i;

	if (from == after && jobq_stands(s, after, "%20"))
		from = after + 3;
	if (from == after)
		return false;
	to = jobq_scan_word_end(s, from);
	if (to == from || jobq_scan_is_blank(s, from, to) ||
		jobq_scan_is_common(s, from, to))
		return false;
	for (i = from; i < to && jobq_is_lower(s->text[i]); i++)
		;
	if (i == to && s->text[s->at] == 'b' && to - from < 16)
		return false;
	if (i > from && jobq_peek(s, i) == '=' && jobq_is_quote(jobq_peek(s, i + 1)))
		return false;
	jobq_scan_hide(s, from, to);
	return true;
}

/* Does base64 stand here for printable text with a colon in it? */
static bool
hide_basic(JobqScan *s)
{
	size_t		from = jobq_skip_blanks(s, s->at + 5);
	size_t		to = from;
	unsigned int bits = 0;
	int			nbits = 0;
	bool		colon = false;

	if (from == s->at + 5)
		return false;
	for (; jobq_base64(jobq_peek(s, to)) >= 0; to++)
	{
		unsigned char byte;

		bits = bits << 6 | (unsigned int) jobq_base64(s->text[to]);
		nbits += 6;
		if (nbits < 8)
			continue;
		nbits -= 8;
		byte = (unsigned char) (bits >> nbits);
		bits &= (1U << nbits) - 1;
		if (byte < ' ' || byte == 0x7f)
			return false;
		colon |= byte == ':';
	}
	if (!colon || to - from < 4)
		return false;
	while (jobq_peek(s, to) == '=')
		to++;
	jobq_scan_hide(s, from, to);
	return true;
}

/* ---- all of them ---- */

bool
jobq_scan_word(JobqScan *s)
{
	char		c = s->text[s->at];

	if (s->patterns->n > 0 && hide_pattern(s))
		return true;
	if (jobq_scan_token(s))
		return true;
	if (jobq_is_hex(c) && copy_uuid(s))
		return true;
	if (jobq_is_digit(c))
		return hide_card(s);
	if ((c == 'B' || c == 'b') && jobq_stands(s, s->at, "bearer"))
		return hide_bearer(s);
	if ((c == 'B' || c == 'b') && jobq_stands(s, s->at, "basic"))
		return hide_basic(s);
	return false;
}
