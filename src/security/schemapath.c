/*
 * schemapath.c: ways to a place in a JSON document: as a pointer that messages
 * show, and along a pointer that a schema gives. Must not show values.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

#include "security/schema.h"

#define NAME_SHOWN		40		/* bytes of a name */
#define POINTER_SHOWN	400		/* bytes of a pointer */
#define CUT				"..."

int
jobq_schema_compare_names(const JobqSchemaName *a, const JobqSchemaName *b)
{
	if (a->len != b->len)
		return a->len < b->len ? -1 : 1;
	return memcmp(a->s, b->s, a->len);
}

/* ---- showing ---- */

/* What could begin a new line is shown as a question mark. */
static void
append_name(StringInfo out, const char *name, int len)
{
	int			shown = len <= NAME_SHOWN ? len :
		pg_mbcliplen(name, len, NAME_SHOWN);

	for (int i = 0; i < shown; i++)
	{
		unsigned char c = (unsigned char) name[i];

		if (c == '~')
			appendStringInfoString(out, "~0");
		else if (c == '/')
			appendStringInfoString(out, "~1");
		else
			appendStringInfoChar(out, c < 0x20 || c == 0x7f ? '?' : name[i]);
	}
	if (shown < len)
		appendStringInfoString(out, CUT);
}

/* The last steps are those that matter. */
char *
jobq_schema_pointer(const JobqSchemaStep *step)
{
	char	   *pointer = pstrdup("");

	for (; step != NULL; step = step->parent)
	{
		StringInfoData one;

		initStringInfo(&one);
		appendStringInfoChar(&one, '/');
		if (step->name == NULL)
			appendStringInfo(&one, INT64_FORMAT, step->index);
		else
			append_name(&one, step->name, step->len);
		if (one.len + strlen(pointer) > POINTER_SHOWN)
			return psprintf("%s%s", CUT, pointer);
		appendStringInfoString(&one, pointer);
		pointer = one.data;
	}
	return pointer;
}

/* ---- following ---- */

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* %41 is an A; false when a percent sign means nothing. */
static bool
undo_percent(const char *s, int len, StringInfo out)
{
	for (int i = 0; i < len; i++)
	{
		char		c = s[i];

		if (c == '%')
		{
			int			high = i + 2 < len ? hex_digit(s[i + 1]) : -1;
			int			low = high >= 0 ? hex_digit(s[i + 2]) : -1;

			if (low < 0)
				return false;
			c = (char) (high * 16 + low);
			i += 2;
		}
		if (c == '\0')
			return false;
		appendStringInfoChar(out, c);
	}
	return true;
}

/* One part of a pointer: ~1 is a slash, ~0 a tilde. */
static bool
undo_tilde(const char *s, int len, StringInfo out)
{
	resetStringInfo(out);
	for (int i = 0; i < len; i++)
	{
		if (s[i] != '~')
			appendStringInfoChar(out, s[i]);
		else if (i + 1 < len && (s[i + 1] == '0' || s[i + 1] == '1'))
			appendStringInfoChar(out, s[++i] == '0' ? '~' : '/');
		else
			return false;
	}
	return true;
}

static JsonbValue *
element(JsonbContainer *array, const StringInfoData *part)
{
	uint32		index = 0;

	if (part->len < 1 || part->len > 9 ||
		(part->data[0] == '0' && part->len > 1))
		return NULL;
	for (int i = 0; i < part->len; i++)
	{
		if (part->data[i] < '0' || part->data[i] > '9')
			return NULL;
		index = index * 10 + (part->data[i] - '0');
	}
	return getIthJsonbValueFromContainer(array, index);
}

JsonbValue *
jobq_schema_follow(Jsonb *root, const char *pointer, int len)
{
	StringInfoData plain;
	StringInfoData part;
	JsonbValue *value = palloc(sizeof(JsonbValue));
	const char *next;

	initStringInfo(&plain);
	initStringInfo(&part);
	value->type = jbvBinary;
	value->val.binary.data = &root->root;
	value->val.binary.len = VARSIZE(root) - VARHDRSZ;
	if (!undo_percent(pointer, len, &plain))
		return NULL;
	for (const char *s = plain.data; *s != '\0' && value != NULL; s = next)
	{
		if (*s++ != '/' || value->type != jbvBinary)
			return NULL;
		next = s + strcspn(s, "/");
		if (!undo_tilde(s, next - s, &part))
			return NULL;
		if (JsonContainerIsObject(value->val.binary.data))
			value = getKeyJsonValueFromContainer(value->val.binary.data,
												 part.data, part.len, NULL);
		else
			value = element(value->val.binary.data, &part);
	}
	return value;
}

const JobqSchemaStep *
jobq_schema_steps(const char *pointer, int len)
{
	const JobqSchemaStep *last = NULL;
	const char *end = pointer + len;

	while (pointer < end)
	{
		JobqSchemaStep *step = palloc0(sizeof(JobqSchemaStep));
		const char *next = memchr(pointer + 1, '/', end - pointer - 1);

		if (next == NULL)
			next = end;
		step->parent = last;
		step->name = pointer + 1;
		step->len = next - pointer - 1;
		last = step;
		pointer = next;
	}
	return last;
}
