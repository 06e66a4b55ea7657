/*
 * tree.c: an ordered set of slot numbers, linked through the slots themselves.
 *
 * A treap (Seidel and Aragon, "Randomized Search Trees", 1996): a search tree
 * by key that is a heap by a weight, here a hash of the slot number, which
 * keeps the expected depth at 2 ln n whatever order keys arrive in. Must not
 * know what the elements are, nor allocate, nor use recursion.
 */
#include "tree.h"

static inline void *
element_at(const JobqTreeType *type, void *base, int32_t element)
{
	return (char *) base + (size_t) element * type->stride;
}

static inline JobqTreeNode *
node_at(const JobqTreeType *type, void *base, int32_t element)
{
	return (JobqTreeNode *) ((char *) element_at(type, base, element) +
							 type->offset);
}

/* Murmur3's finalizer: a bijection, so weights never tie. */
static inline uint32_t
weight(int32_t element)
{
	uint32_t	h = (uint32_t) element;

	h ^= h >> 16;
	h *= 0x85ebca6bU;
	h ^= h >> 13;
	h *= 0xc2b2ae35U;
	h ^= h >> 16;
	return h;
}

/* Cut a subtree at an element's key; both parts go below the element. */
static void
split(const JobqTreeType *type, void *base, int32_t tree, int32_t element)
{
	const void *key = element_at(type, base, element);
	int32_t    *smaller = &node_at(type, base, element)->left;
	int32_t    *larger = &node_at(type, base, element)->right;
	int32_t		above_smaller = element;
	int32_t		above_larger = element;

	while (tree != JOBQ_NIL)
	{
		JobqTreeNode *node = node_at(type, base, tree);

		if (type->compare(element_at(type, base, tree), key) < 0)
		{
			*smaller = tree;
			node->up = above_smaller;
			above_smaller = tree;
			smaller = &node->right;
			tree = node->right;
		}
		else
		{
			*larger = tree;
			node->up = above_larger;
			above_larger = tree;
			larger = &node->left;
			tree = node->left;
		}
	}
	*smaller = JOBQ_NIL;
	*larger = JOBQ_NIL;
}

/*
 * Join two subtrees, all of the first being smaller than all of the second,
 * to one below `up`.
 */
static int32_t
join(const JobqTreeType *type, void *base, int32_t smaller, int32_t larger,
	 int32_t up)
{
	int32_t		root = JOBQ_NIL;
	int32_t    *link = &root;

	while (smaller != JOBQ_NIL && larger != JOBQ_NIL)
	{
		bool		is_smaller = weight(smaller) > weight(larger);
		int32_t		top = is_smaller ? smaller : larger;
		JobqTreeNode *node = node_at(type, base, top);

		node->up = up;
		up = top;
		*link = top;
		if (is_smaller)
		{
			link = &node->right;
			smaller = node->right;
		}
		else
		{
			link = &node->left;
			larger = node->left;
		}
	}
	*link = smaller != JOBQ_NIL ? smaller : larger;
	if (*link != JOBQ_NIL)
		node_at(type, base, *link)->up = up;
	return root;
}

/* Where `up` has `old` below it, or the tree as its root, put `new` there. */
static void
replace(const JobqTreeType *type, void *base, JobqTree *tree, int32_t up,
		int32_t old, int32_t new)
{
	JobqTreeNode *node;

	if (up == JOBQ_NIL)
	{
		tree->root = new;
		return;
	}
	node = node_at(type, base, up);
	if (node->left == old)
		node->left = new;
	else
		node->right = new;
}

/*
 * From the last element upwards: the lowest one that is smaller and weighs
 * more, below which the new one belongs to the right; JOBQ_NIL: the root.
 */
static int32_t
climb(const JobqTreeType *type, void *base, const JobqTree *tree,
	  int32_t element)
{
	const void *key = element_at(type, base, element);
	int32_t		at = tree->last;

	while (at != JOBQ_NIL &&
		   type->compare(element_at(type, base, at), key) > 0)
		at = node_at(type, base, at)->up;
	while (at != JOBQ_NIL && weight(at) < weight(element))
		at = node_at(type, base, at)->up;
	return at;
}

void
jobq_tree_insert(const JobqTreeType *type, void *base, JobqTree *tree,
				 int32_t element)
{
	const void *key = element_at(type, base, element);
	int32_t		up = climb(type, base, tree, element);
	int32_t    *link = up == JOBQ_NIL ? &tree->root :
		&node_at(type, base, up)->right;
	bool		is_first = up == JOBQ_NIL;
	bool		is_last = true;
	JobqTreeNode *node = node_at(type, base, element);

	while (*link != JOBQ_NIL && weight(*link) > weight(element))
	{
		bool		is_right;

		up = *link;
		is_right = type->compare(element_at(type, base, up), key) < 0;
		link = is_right ? &node_at(type, base, up)->right :
			&node_at(type, base, up)->left;
		if (is_right)
			is_first = false;
		else
			is_last = false;
	}
	split(type, base, *link, element);
	node->up = up;
	*link = element;
	if (is_first && node->left == JOBQ_NIL)
		tree->first = element;
	if (is_last && node->right == JOBQ_NIL)
		tree->last = element;
}

void
jobq_tree_remove(const JobqTreeType *type, void *base, JobqTree *tree,
				 int32_t element)
{
	JobqTreeNode *node = node_at(type, base, element);
	int32_t		next;

	if (tree->first == element)
	{
		tree->first = node->up;
		for (next = node->right; next != JOBQ_NIL;
			 next = node_at(type, base, next)->left)
			tree->first = next;
	}
	if (tree->last == element)
	{
		tree->last = node->up;
		for (next = node->left; next != JOBQ_NIL;
			 next = node_at(type, base, next)->right)
			tree->last = next;
	}
	replace(type, base, tree, node->up, element,
			join(type, base, node->left, node->right, node->up));
}

int32_t
jobq_tree_after(const JobqTreeType *type, void *base, const JobqTree *tree,
				const void *key)
{
	int32_t		at = tree->root;
	int32_t		after = JOBQ_NIL;

	while (at != JOBQ_NIL)
	{
		if (type->compare(element_at(type, base, at), key) > 0)
		{
			after = at;
			at = node_at(type, base, at)->left;
		}
		else
			at = node_at(type, base, at)->right;
	}
	return after;
}
