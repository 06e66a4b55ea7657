/*
 * tree.h: an ordered set of slot numbers, linked through the slots themselves.
 *
 * Plain C, no server headers: also built into a stand-alone model test. Never
 * allocates, never fails. Not thread-safe: the caller holds the lock.
 */
#ifndef JOBQ_TREE_H
#define JOBQ_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JOBQ_NIL	(-1)

/* Lives in each element. */
typedef struct JobqTreeNode
{
	int32_t		up;
	int32_t		left;
	int32_t		right;
} JobqTreeNode;

/* A set; each JOBQ_NIL when it is empty. */
typedef struct JobqTree
{
	int32_t		root;
	int32_t		first;
	int32_t		last;
} JobqTree;

/*
 * Where the elements are and how they compare. A total order: compare returns
 * 0 only for the element itself.
 */
typedef struct JobqTreeType
{
	size_t		stride;			/* bytes from one element to the next */
	size_t		offset;			/* of the JobqTreeNode inside an element */
	int			(*compare) (const void *a, const void *b);
} JobqTreeType;

static inline void
jobq_tree_init(JobqTree *tree)
{
	tree->root = JOBQ_NIL;
	tree->first = JOBQ_NIL;
	tree->last = JOBQ_NIL;
}

static inline bool
jobq_tree_is_empty(const JobqTree *tree)
{
	return tree->root == JOBQ_NIL;
}

/*
 * The element is in no tree. Looks for its place from the end on: of one that
 * comes after all but d others it takes O(log d), of the first two walks.
 */
extern void jobq_tree_insert(const JobqTreeType *type, void *base,
							 JobqTree *tree, int32_t element);

/*
 * The element is in this tree, which nothing looks after: removing one that is
 * in none breaks another. No search, nor does its key have to be right.
 */
extern void jobq_tree_remove(const JobqTreeType *type, void *base,
							 JobqTree *tree, int32_t element);

/* Smallest element greater than key (an element-shaped value), or JOBQ_NIL. */
extern int32_t jobq_tree_after(const JobqTreeType *type, void *base,
							   const JobqTree *tree, const void *key);

#endif							/* JOBQ_TREE_H */
