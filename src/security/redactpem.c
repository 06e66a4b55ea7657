/*
 * redactpem.c: keys and certificates between lines of dashes, also when the
 * beginning or the end has been cut off. Plain C.
 */
#include "security/redactscan.h"

#define DASHES	"-----"

/* Behind the label and the dashes that end a line of PEM, or 0. */
static size_t
pem_line_end(const JobqScan *s, size_t i)
{
	size_t		limit = i + 64;

	while (i < limit && (jobq_is_upper(jobq_peek(s, i)) ||
						 jobq_is_digit(jobq_peek(s, i)) ||
						 jobq_peek(s, i) == ' '))
		i++;
	return jobq_stands(s, i, DASHES) ? i + 5 : 0;
}

/* Where the block ends that may begin here, to the end of the text if it was
 * cut off; 0 if it is only mentioned. */
static size_t
pem_block_end(const JobqScan *s, size_t from)
{
	size_t		i = from;
	size_t		run = 0;

	while (jobq_peek(s, i) == ' ')
		i++;
	if (i < s->length && s->text[i] != '\n' && s->text[i] != '\r' &&
		s->text[i] != '\\')
	{
		while (run < 16 && jobq_base64(jobq_peek(s, i + run)) >= 0)
			run++;
		if (run < 16 && i + run < s->length)
			return 0;
	}
	for (; i < s->length; i++)
	{
		const char *dash = memchr(s->text + i, '-', s->length - i);

		if (dash == NULL)
			break;
		i = (size_t) (dash - s->text);
		if (jobq_stands(s, i, DASHES "end "))
		{
			size_t		end = pem_line_end(s, i + 9);

			return end > 0 ? end : i + 9;
		}
	}
	return s->length;
}

static bool
is_pem_body(char c)
{
	return jobq_is_alnum(c) || c == '+' || c == '/' || c == '=';
}

/* Not a word: long, or with more than letters, or with capitals inside. */
static bool
is_pem_line(const char *from, size_t length)
{
	for (size_t i = 0; i < length; i++)
	{
		if (!jobq_is_letter(from[i]) || (i > 0 && jobq_is_upper(from[i])))
			return length >= 4;
	}
	return length >= 32;
}

/* An escaped end of a line stands before i. */
static bool
is_escape(const JobqScan *s, size_t i)
{
	return i > 1 && s->out[i - 2] == '\\' &&
		(s->out[i - 1] == 'n' || s->out[i - 1] == 'r');
}

/*
 * The end of a block whose beginning is missing: back over lines of base64.
 * What has been hidden is not looked at again, so that stays linear.
 */
static bool
hide_pem_tail(JobqScan *s, size_t to)
{
	size_t		keep = s->used;
	size_t		i = keep;

	for (;;)
	{
		size_t		end;

		while (i > 0 && (jobq_is_space(s->out[i - 1]) || is_escape(s, i)))
			i -= jobq_is_space(s->out[i - 1]) ? 1 : 2;
		end = i;
		while (i > 0 && is_pem_body(s->out[i - 1]) && !is_escape(s, i))
			i--;
		/* the last line may be short, and the first, which was cut */
		if (end == i ||
			(keep == s->used ? !is_pem_line(s->out + i, end - i) :
			 end - i < 32 && i > 0))
			break;
		keep = i;
	}
	if (keep == s->used)
		return false;
	jobq_scan_hide_again(s, keep, to);
	return true;
}

bool
jobq_scan_pem(JobqScan *s)
{
	if (jobq_stands(s, s->at, DASHES "begin "))
	{
		size_t		line = pem_line_end(s, s->at + 11);
		size_t		end = line > 0 ? pem_block_end(s, line) : 0;

		if (end == 0)
			return false;
		jobq_scan_hide(s, s->at, end);
		return true;
	}
	if (jobq_stands(s, s->at, DASHES "end "))
	{
		size_t		line = pem_line_end(s, s->at + 9);

		return line > 0 && hide_pem_tail(s, line);
	}
	return false;
}
