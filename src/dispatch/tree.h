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
	int32_t		left;
	int32_t		right;
} JobqTreeNode;

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

extern void jobq_tree_insert(const JobqTreeType *type, void *base,
							 int32_t *root, int32_t element);
extern bool jobq_tree_remove(const JobqTreeType *type, void *base,
							 int32_t *root, int32_t element);
extern int32_t jobq_tree_first(const JobqTreeType *type, void *base,
							   int32_t root);
extern int32_t jobq_tree_last(const JobqTreeType *type, void *base,
							  int32_t root);

/* Smallest element greater than key (an element-shaped value), or JOBQ_NIL. */
extern int32_t jobq_tree_after(const JobqTreeType *type, void *base,
							   int32_t root, const void *key);

#endif							/* JOBQ_TREE_H */
