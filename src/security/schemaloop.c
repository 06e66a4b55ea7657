/*
 * schemaloop.c: which parts of a schema apply to the same value, one within
 * the other: never in a circle, and not too many. Looks at nodes only.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "api/args.h"
#include "security/schema.h"

static int	visit(JobqSchemaNode *node, const char *ref);

static int
visit_all(const JobqSchemaNodes *list, const char *ref)
{
	int			height = 0;

	for (int i = 0; i < list->n; i++)
		height = Max(height, visit(list->nodes[i], ref));
	return height;
}

static int
visit_dependents(const JobqSchemaProperties *list, const char *ref)
{
	int			height = 0;

	for (int i = 0; i < list->n; i++)
		height = Max(height, visit(list->all[i].node, ref));
	return height;
}

/*
 * The height of a node above what it applies to the same value. A circle has a
 * reference in it: `ref`, the last on our way, is one.
 */
static int
visit(JobqSchemaNode *node, const char *ref)
{
	int			height;

	if (node == NULL || node->always != SCHEMA_DEPENDS)
		return 0;
	if (node->visit == SCHEMA_DONE)
		return node->height;
	if (node->visit == SCHEMA_OPEN)
		jobq_bad_argument(ref, "It leads back to itself without going into a value.");
	check_stack_depth();
	node->visit = SCHEMA_OPEN;
	height = visit(node->ref, node->ref_place);
	height = Max(height, visit_all(&node->all_of, ref));
	height = Max(height, visit_all(&node->any_of, ref));
	height = Max(height, visit_all(&node->one_of, ref));
	height = Max(height, visit(node->negated, ref));
	height = Max(height, visit(node->condition, ref));
	height = Max(height, visit(node->consequent, ref));
	height = Max(height, visit(node->alternative, ref));
	height = Max(height, visit_dependents(&node->dependent_schemas, ref));
	if (++height > SCHEMA_MAX_HEIGHT)
		jobq_bad_argument(ref != NULL ? ref : "schema",
						  psprintf("More than %d parts of the schema apply to one value, one within the other.",
								   SCHEMA_MAX_HEIGHT));
	node->visit = SCHEMA_DONE;
	node->height = height;
	return height;
}

void
jobq_schema_refuse_loops(List *nodes)
{
	ListCell   *lc;

	foreach(lc, nodes)
		(void) visit(lfirst(lc), NULL);
}
