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

/* Cut a tree at an element's key into what is smaller and what is larger. */
static void
split(const JobqTreeType *type, void *base, int32_t tree, const void *key,
	  int32_t *smaller, int32_t *larger)
{
	while (tree != JOBQ_NIL)
	{
		JobqTreeNode *node = node_at(type, base, tree);

		if (type->compare(element_at(type, base, tree), key) < 0)
		{
			*smaller = tree;
			smaller = &node->right;
			tree = node->right;
		}
		else
		{
			*larger = tree;
			larger = &node->left;
			tree = node->left;
		}
	}
	*smaller = JOBQ_NIL;
	*larger = JOBQ_NIL;
}

/* Join two trees, all of the first being smaller than all of the second. */
static int32_t
join(const JobqTreeType *type, void *base, int32_t smaller, int32_t larger)
{
	int32_t		root = JOBQ_NIL;
	int32_t    *link = &root;

	while (smaller != JOBQ_NIL && larger != JOBQ_NIL)
	{
		if (weight(smaller) > weight(larger))
		{
			*link = smaller;
			link = &node_at(type, base, smaller)->right;
			smaller = *link;
		}
		else
		{
			*link = larger;
			link = &node_at(type, base, larger)->left;
			larger = *link;
		}
	}
	*link = smaller != JOBQ_NIL ? smaller : larger;
	return root;
}

void
jobq_tree_insert(const JobqTreeType *type, void *base, int32_t *root,
				 int32_t element)
{
	const void *key = element_at(type, base, element);
	JobqTreeNode *node = node_at(type, base, element);
	int32_t    *link = root;

	while (*link != JOBQ_NIL && weight(*link) > weight(element))
	{
		JobqTreeNode *at = node_at(type, base, *link);

		if (type->compare(element_at(type, base, *link), key) < 0)
			link = &at->right;
		else
			link = &at->left;
	}
	split(type, base, *link, key, &node->left, &node->right);
	*link = element;
}

/* Unlink an element; false when it is not in this tree. */
bool
jobq_tree_remove(const JobqTreeType *type, void *base, int32_t *root,
				 int32_t element)
{
	const void *key = element_at(type, base, element);
	JobqTreeNode *node = node_at(type, base, element);
	int32_t    *link = root;

	while (*link != element)
	{
		JobqTreeNode *at;

		if (*link == JOBQ_NIL)
			return false;
		at = node_at(type, base, *link);
		if (type->compare(element_at(type, base, *link), key) < 0)
			link = &at->right;
		else
			link = &at->left;
	}
	*link = join(type, base, node->left, node->right);
	node->left = JOBQ_NIL;
	node->right = JOBQ_NIL;
	return true;
}

int32_t
jobq_tree_first(const JobqTreeType *type, void *base, int32_t root)
{
	int32_t		first = JOBQ_NIL;

	while (root != JOBQ_NIL)
	{
		first = root;
		root = node_at(type, base, root)->left;
	}
	return first;
}

int32_t
jobq_tree_last(const JobqTreeType *type, void *base, int32_t root)
{
	int32_t		last = JOBQ_NIL;

	while (root != JOBQ_NIL)
	{
		last = root;
		root = node_at(type, base, root)->right;
	}
	return last;
}

int32_t
jobq_tree_after(const JobqTreeType *type, void *base, int32_t root,
				const void *key)
{
	int32_t		after = JOBQ_NIL;

	while (root != JOBQ_NIL)
	{
		if (type->compare(element_at(type, base, root), key) > 0)
		{
			after = root;
			root = node_at(type, base, root)->left;
		}
		else
			root = node_at(type, base, root)->right;
	}
	return after;
}
