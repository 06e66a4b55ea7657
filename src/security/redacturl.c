/*
 * redacturl.c: users and passwords in URLs of any scheme, and in names of data
 * sources that look like them. Plain C.
 */
#include "security/redactscan.h"

static bool
ends_url(char c)
{
	return jobq_is_space(c) || c == '"' || c == '<' || c == '>' || c == '`';
}

/* The last @ of the word that i is in, or the word's end. */
static size_t
last_sign(JobqScan *s, size_t i)
{
	if (i >= s->url_end)
	{
		size_t		sign = 0;
		size_t		end = i;

		for (; end < s->length && !ends_url(s->text[end]); end++)
		{
			if (s->text[end] == '@')
				sign = end;
		}
		s->url_end = end;
		s->url_sign = sign > 0 ? sign : end;
	}
	return s->url_sign;
}

static bool
is_port(const JobqScan *s, size_t from, size_t to)
{
	while (from < to && jobq_is_digit(s->text[from]))
		from++;
	return from == to;
}

static bool
is_masked(const JobqScan *s, size_t from, size_t to)
{
	while (from < to && (s->text[from] == '*' || s->text[from] == ':'))
		from++;
	return from == to;
}

static bool
is_http(const JobqScan *s, size_t colon)
{
	size_t		i = colon;

	if (jobq_lower(jobq_before(s, i)) == 's')
		i--;
	return i >= s->floor + 4 && jobq_stands(s, i - 4, "http");
}

/*
 * At "://": user and password go. A user alone goes where it is long enough to
 * be a token. A password may have anything in it, also a slash or an @.
 */
bool
jobq_scan_userinfo(JobqScan *s)
{
	size_t		from = s->at + 3;
	size_t		end = from;
	size_t		sign = 0;
	size_t		colon = 0;

	for (; end < s->length && !ends_url(s->text[end]) &&
		 strchr("/?#\\'", s->text[end]) == NULL; end++)
	{
		if (s->text[end] == '@')
			sign = end;
		else if (s->text[end] == ':' && colon == 0)
			colon = end;
	}
	if (sign == 0 && colon > 0 && s->text[from] != '[' &&
		!is_port(s, colon + 1, end))
	{
		size_t		last = last_sign(s, end);

		if (jobq_peek(s, last) == '@' && last >= end)
			sign = last;
	}
	if (sign <= from || is_masked(s, from, sign))
		return false;
	if ((colon == 0 || colon > sign) &&
		!(is_http(s, s->at) && sign - from >= 16))
		return false;
	jobq_scan_hide(s, from, sign);
	return true;
}

/* At "@": names of data sources that are no URLs. */
bool
jobq_scan_source(JobqScan *s)
{
	static const char *const after[] = {"@tcp(", "@unix(", "@udp("};
	static const char oracle[] = "jdbc:oracle:thin:";
	const char *word = s->out + s->word_out;
	size_t		length = s->used - s->word_out;
	size_t		n = sizeof(oracle) - 1;

	if (length > n && memcmp(word, oracle, n) == 0)
	{
		if (length == n + 3 && memcmp(word + n, "***", 3) == 0)
			return false;
		jobq_scan_hide_again(s, s->word_out + n, s->at);
		return true;
	}
	for (size_t i = 0; i < sizeof(after) / sizeof(after[0]); i++)
	{
		if (s->colon > 0 && jobq_stands(s, s->at, after[i]))
		{
			jobq_scan_hide_again(s, s->word_out, s->at);
			return true;
		}
	}
	return false;
}
