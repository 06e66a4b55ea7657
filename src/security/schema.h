/*
 * schema.h: JSON Schema, draft 2020-12, as far as docs/schema.md lists it: a
 * schema made into nodes, and documents checked against them. Pure: knows
 * neither queues nor tables.
 */
#ifndef JOBQ_SCHEMA_H
#define JOBQ_SCHEMA_H

#include "nodes/pg_list.h"
#include "regex/regex.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

#include "compat.h"

/* JSON types, as bits. */
#define SCHEMA_NULL			1
#define SCHEMA_BOOLEAN		2
#define SCHEMA_STRING		4
#define SCHEMA_NUMBER		8
#define SCHEMA_INTEGER		16
#define SCHEMA_ARRAY		32
#define SCHEMA_OBJECT		64

typedef struct JobqSchemaNode JobqSchemaNode;

/* Not NUL-terminated; in lists they are sorted as the keys of jsonb are. */
typedef struct JobqSchemaName
{
	const char *s;
	int			len;
} JobqSchemaName;

typedef struct JobqSchemaNames
{
	JobqSchemaName *names;
	int			n;
} JobqSchemaNames;

typedef struct JobqSchemaNodes
{
	JobqSchemaNode **nodes;
	int			n;
} JobqSchemaNodes;

/* A node for a property; or names that a property demands; sorted by name. */
typedef struct JobqSchemaProperty
{
	JobqSchemaName name;
	JobqSchemaNode *node;
	JobqSchemaNames names;
} JobqSchemaProperty;

typedef struct JobqSchemaProperties
{
	JobqSchemaProperty *all;
	int			n;
} JobqSchemaProperties;

typedef struct JobqSchemaPattern
{
	regex_t		regex;
	int			cost;			/* steps for a character */
	JobqSchemaNode *node;		/* for properties whose name matches */
} JobqSchemaPattern;

typedef struct JobqSchemaPatterns
{
	JobqSchemaPattern **all;
	int			n;
} JobqSchemaPatterns;

/* Values that are allowed. */
typedef struct JobqSchemaValues
{
	JobqSchemaNames words;		/* those that are strings */
	JsonbValue *others;
	int			nothers;
} JobqSchemaValues;

typedef enum JobqSchemaAlways
{
	SCHEMA_DEPENDS,
	SCHEMA_ALWAYS,				/* true */
	SCHEMA_NEVER				/* false */
} JobqSchemaAlways;

/* The state of a node while we look for circles. */
typedef enum JobqSchemaVisit
{
	SCHEMA_NEW,
	SCHEMA_OPEN,
	SCHEMA_DONE
} JobqSchemaVisit;

/* What a schema does not say is NULL, empty, or -1 where it is a count. */
struct JobqSchemaNode
{
	JobqSchemaAlways always;
	int			types;			/* 0 = any */
	JobqSchemaValues *allowed;	/* enum */
	JobqSchemaValues *constant;

	Numeric		minimum;
	Numeric		maximum;
	Numeric		exclusive_minimum;
	Numeric		exclusive_maximum;
	Numeric		multiple_of;

	int64		min_length;
	int64		max_length;
	JobqSchemaPattern *pattern;

	int64		min_items;
	int64		max_items;
	int64		min_contains;
	int64		max_contains;
	bool		unique_items;
	JobqSchemaNodes prefix_items;
	JobqSchemaNode *items;
	JobqSchemaNode *contains;

	int64		min_properties;
	int64		max_properties;
	JobqSchemaNames required;
	JobqSchemaProperties properties;
	JobqSchemaPatterns pattern_properties;
	JobqSchemaNode *additional_properties;
	JobqSchemaNode *property_names;
	JobqSchemaProperties dependent_required;
	JobqSchemaProperties dependent_schemas;

	JobqSchemaNodes all_of;
	JobqSchemaNodes any_of;
	JobqSchemaNodes one_of;
	JobqSchemaNode *negated;
	JobqSchemaNode *condition;	/* if */
	JobqSchemaNode *consequent; /* then */
	JobqSchemaNode *alternative;	/* else */
	JobqSchemaNode *ref;
	char	   *ref_place;		/* where it stands, for messages */

	JobqSchemaVisit visit;
	int			height;			/* of what it applies to the same value */
};

/* Bounds of a schema. */
#define SCHEMA_MAX_BYTES	65536
#define SCHEMA_MAX_NESTING	100
#define SCHEMA_MAX_HEIGHT	100
#define SCHEMA_MAX_PATTERN	1000	/* characters */
#define SCHEMA_MAX_STATES	1000	/* of a pattern's automaton */
#define SCHEMA_MAX_DIGITS	100 /* of multipleOf */

/* Of a document: what a check may take, and strings that are matched. */
#define SCHEMA_MIN_STEPS		INT64CONST(100000)
#define SCHEMA_STEPS_A_BYTE		4
#define SCHEMA_MATCH_MAX		32768	/* bytes */

/* One step of the way to a place, in a document or a schema. */
typedef struct JobqSchemaStep
{
	const struct JobqSchemaStep *parent;
	const char *name;			/* NULL: index counts */
	int			len;
	int64		index;
} JobqSchemaStep;

/* ---- schemapath.c ---- */

/* The way as a JSON Pointer; long names are cut, and so is the whole. */
extern char *jobq_schema_pointer(const JobqSchemaStep *step);

/*
 * The part of a document that a pointer leads to, as in a URI's fragment, %xx
 * included; NULL when there is none.
 */
extern JsonbValue *jobq_schema_follow(Jsonb *root, const char *pointer,
									  int len);

/* The steps of a pointer, as it is written; palloc'd. */
extern const JobqSchemaStep *jobq_schema_steps(const char *pointer, int len);

/* As the keys of jsonb are sorted. */
extern int	jobq_schema_compare_names(const JobqSchemaName *a,
									  const JobqSchemaName *b);

/* ---- schemajson.c ---- */

/* A place in a schema, for messages; JQ007 for what is wrong there. */
extern char *jobq_schema_place(const JobqSchemaStep *at);
JOBQ_NORETURN extern void jobq_schema_refuse(const JobqSchemaStep *at,
											 const char *detail);

extern bool jobq_schema_is_object(const JsonbValue *value);
extern bool jobq_schema_is_array(const JsonbValue *value);
extern bool jobq_schema_is_text(const JsonbValue *value, const char *text);

/* JQ007 if it is something else. */
extern void jobq_schema_need_object(const JsonbValue *value,
									const JobqSchemaStep *at);
extern void jobq_schema_need_array(const JsonbValue *value,
								   const JobqSchemaStep *at);
extern void jobq_schema_need_string(const JsonbValue *value,
									const JobqSchemaStep *at);

/*
 * The elements of an array, or the pairs of an object in the order of their
 * keys: how many there are; palloc'd, but pointing into it.
 */
extern int	jobq_schema_elements(const JsonbValue *array,
								 JsonbValue **elements);
extern int	jobq_schema_pairs(const JsonbValue *object, JsonbValue **keys,
							  JsonbValue **values);

/* An array of different strings, sorted; JQ007 if it is none. */
extern void jobq_schema_names(const JsonbValue *array,
							  const JobqSchemaStep *at,
							  JobqSchemaNames *names);

/*
 * An order of numbers and of all values, in which those are equal that JSON
 * takes for equal.
 */
extern int	jobq_schema_numcmp(Numeric a, Numeric b);
extern int	jobq_schema_cmp(const JsonbValue *a,
									   const JsonbValue *b);

extern JobqSchemaStep jobq_schema_key_step(const JobqSchemaStep *parent,
										   const JsonbValue *key);
extern JobqSchemaStep jobq_schema_index_step(const JobqSchemaStep *parent,
											 int index);

/* ---- schemaregex.c ---- */

/*
 * Compile a pattern into the current memory context, which frees it. NULL when
 * that is not possible: *why says it.
 */
extern JobqSchemaPattern *jobq_schema_pattern(const char *pattern, int len,
											  const char **why);

/* Does a string have a match? */
extern bool jobq_schema_matches(JobqSchemaPattern *pattern, const char *s,
								int len);

/* ---- schema.c ---- */

/*
 * The schema that an option says, made into nodes in the current memory
 * context. JQ007, naming path and keyword, for anything that is not a schema
 * of those we know.
 */
extern JobqSchemaNode *jobq_schema_compile(JsonbValue *schema);

/* ---- schemaloop.c ---- */

/*
 * JQ007 if one of all the nodes of a schema would apply itself to one value
 * without end, or too many of them would within each other.
 */
extern void jobq_schema_refuse_loops(List *nodes);

/* ---- schemacheck.c ---- */

typedef enum JobqSchemaVerdict
{
	SCHEMA_MET,
	SCHEMA_BROKEN,
	SCHEMA_GIVEN_UP				/* it would take too long */
} JobqSchemaVerdict;

/* Where a document breaks a schema; palloc'd. Nothing of its values. */
typedef struct JobqSchemaFault
{
	char	   *pointer;
	const char *keyword;
} JobqSchemaFault;

extern JobqSchemaVerdict jobq_schema_check(const JobqSchemaNode *schema,
										   Jsonb *document,
										   JobqSchemaFault *fault);

#endif							/* JOBQ_SCHEMA_H */
