/*
 * checktree.c: is a tree linked as it should be? For check.c, which has seen
 * to it that nobody changes it meanwhile.
 *
 * Exists in test builds only. Must not change anything, nor follow a broken
 * tree for ever.
 */
#include "postgres.h"

#ifdef JOBQ_TEST_BUILD

#include "dispatch/internal.h"

#define DEPTH_MAX	200			/* far beyond 2 ln n */

typedef struct Linked
{
	const char *nodes;			/* the node of element 0 */
	size_t		stride;
	int			n;				/* elements that there can be */
} Linked;

static const JobqTreeNode *
node_of(const Linked *linked, int32 at)
{
	return (const JobqTreeNode *) (linked->nodes + at * linked->stride);
}

/* Each element of a subtree tells who is above it. */
static bool
is_linked(const Linked *linked, int32 at, int32 up, int depth)
{
	if (at == JOBQ_NIL)
		return true;
	if (at < 0 || at >= linked->n || depth > DEPTH_MAX ||
		node_of(linked, at)->up != up)
		return false;
	return is_linked(linked, node_of(linked, at)->left, at, depth + 1) &&
		is_linked(linked, node_of(linked, at)->right, at, depth + 1);
}

bool
jobq_tree_is_sound(const void *base, size_t stride, size_t offset,
				   const JobqTree *tree, int n)
{
	Linked		linked = {(const char *) base + offset, stride, n};
	int32		first = tree->root;
	int32		last = tree->root;

	if (!is_linked(&linked, tree->root, JOBQ_NIL, 0))
		return false;
	while (first != JOBQ_NIL && node_of(&linked, first)->left != JOBQ_NIL)
		first = node_of(&linked, first)->left;
	while (last != JOBQ_NIL && node_of(&linked, last)->right != JOBQ_NIL)
		last = node_of(&linked, last)->right;
	return first == tree->first && last == tree->last;
}

#endif							/* JOBQ_TEST_BUILD */
