/*
 * tree_test.c: compares the tree with a sorted array over many random steps,
 * and checks its order, its membership and its depth. Prints TAP. Knows the
 * tree only through its header and the node's two links.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatch/tree.h"
#include "unit.h"

#define MAX_ELEMENTS	5000
#define ROUNDS			20000

typedef struct Element
{
	char		before[3];		/* the node need not come first */
	int64_t		key;
	int32_t		id;
	JobqTreeNode node;
} Element;

static Element elements[MAX_ELEMENTS];
static int32_t sorted[MAX_ELEMENTS];	/* the model: members in order */
static int	nsorted;
static bool member[MAX_ELEMENTS];

static int
compare_elements(const void *a, const void *b)
{
	const Element *x = a;
	const Element *y = b;

	if (x->key != y->key)
		return x->key < y->key ? -1 : 1;
	return (x->id > y->id) - (x->id < y->id);
}

static const JobqTreeType type = {
	.stride = sizeof(Element),
	.offset = offsetof(Element, node),
	.compare = compare_elements
};

static void
report(bool passed, const char *what, uint64_t seed)
{
	char		name[200];

	snprintf(name, sizeof(name), "%s (seed %llu)", what,
			 (unsigned long long) seed);
	ok(passed, name);
}

/* Number of members smaller than an element, or not larger than it. */
static int
model_rank(const Element *key, bool with_equal)
{
	int			low = 0;
	int			high = nsorted;

	while (low < high)
	{
		int			middle = (low + high) / 2;
		int			order = compare_elements(&elements[sorted[middle]], key);

		if (order < 0 || (with_equal && order == 0))
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void
model_insert(int32_t element)
{
	int			at = model_rank(&elements[element], false);

	memmove(&sorted[at + 1], &sorted[at], (nsorted - at) * sizeof(int32_t));
	sorted[at] = element;
	nsorted++;
	member[element] = true;
}

static void
model_remove(int32_t element)
{
	int			at = model_rank(&elements[element], false);

	nsorted--;
	memmove(&sorted[at], &sorted[at + 1], (nsorted - at) * sizeof(int32_t));
	member[element] = false;
}

static int32_t
model_after(const Element *key)
{
	int			at = model_rank(key, true);

	return at < nsorted ? sorted[at] : JOBQ_NIL;
}

/* Does it know above it who knows it below? */
static bool
linked_right(int32_t root, int32_t element)
{
	int32_t		up = elements[element].node.up;

	if (up == JOBQ_NIL)
		return element == root;
	return elements[up].node.left == element ||
		elements[up].node.right == element;
}

/* Its depth, or 0 when a link upwards is wrong. */
static int
tree_depth(int32_t root)
{
	static struct
	{
		int32_t		element;
		int			depth;
	}			todo[MAX_ELEMENTS + 1];
	int			ntodo = 0;
	int			deepest = 0;

	todo[ntodo].element = root;
	todo[ntodo++].depth = 1;
	while (ntodo > 0)
	{
		int32_t		element = todo[--ntodo].element;
		int			depth = todo[ntodo].depth;

		if (element == JOBQ_NIL)
			continue;
		if (!linked_right(root, element))
			return 0;
		if (depth > deepest)
			deepest = depth;
		todo[ntodo].element = elements[element].node.left;
		todo[ntodo++].depth = depth + 1;
		todo[ntodo].element = elements[element].node.right;
		todo[ntodo++].depth = depth + 1;
	}
	return deepest;
}

/* Everything the tree says, walked in order, against the model. */
static bool
same_as_model(const JobqTree *tree)
{
	int32_t		at = tree->first;

	for (int i = 0; i < nsorted; i++)
	{
		if (at != sorted[i])
			return false;
		at = jobq_tree_after(&type, elements, tree, &elements[at]);
	}
	return at == JOBQ_NIL;
}

/* Expected 2 ln n; six times log2 n is never reached by chance. */
static bool
depth_reasonable(int32_t root)
{
	int			log2 = 1;
	int			depth;

	while ((1 << log2) < nsorted + 1)
		log2++;
	depth = tree_depth(root);
	return depth <= 6 * log2 && (depth > 0) == (nsorted > 0);
}

static void
clear_model(void)
{
	nsorted = 0;
	memset(member, 0, sizeof(member));
	for (int i = 0; i < MAX_ELEMENTS; i++)
	{
		elements[i].id = i;
		elements[i].node.left = JOBQ_NIL;
		elements[i].node.right = JOBQ_NIL;
	}
}

/*
 * Random inserts, removals and look-ups. The number of distinct keys and the
 * mix of inserts and removals change with the round, so that the tree grows,
 * shrinks and is emptied, with many equal keys and with few.
 */
static void
test_random(uint64_t seed)
{
	JobqTree	tree;
	bool		steps_right = true;
	bool		walks_right = true;
	bool		depth_right = true;

	random_state = seed;
	clear_model();
	jobq_tree_init(&tree);
	for (int round = 0; round < ROUNDS; round++)
	{
		int32_t		element = (int32_t) random_below(MAX_ELEMENTS);
		uint32_t	inserts = (round / 4000) % 2 == 0 ? 70 : 30;
		Element		probe;

		if (random_below(100) < inserts)
		{
			if (!member[element])
			{
				elements[element].key = random_below(seed % 2 ? 50 : 1000000);
				model_insert(element);
				jobq_tree_insert(&type, elements, &tree, element);
			}
		}
		else
		{
			if (member[element])
			{
				model_remove(element);
				jobq_tree_remove(&type, elements, &tree, element);
			}
		}

		if (tree.first != (nsorted > 0 ? sorted[0] : JOBQ_NIL) ||
			tree.last != (nsorted > 0 ? sorted[nsorted - 1] : JOBQ_NIL))
			steps_right = false;

		probe.key = random_below(1000000);
		probe.id = (int32_t) random_below(MAX_ELEMENTS);
		if (jobq_tree_after(&type, elements, &tree, &probe) !=
			model_after(&probe))
			steps_right = false;

		if (round % 500 == 0)
		{
			walks_right = walks_right && same_as_model(&tree);
			depth_right = depth_right && depth_reasonable(tree.root);
		}
	}
	walks_right = walks_right && same_as_model(&tree);

	/* Empty it from the front, as dequeue does. */
	while (nsorted > 0)
	{
		int32_t		first = tree.first;

		if (first != sorted[0])
		{
			steps_right = false;
			break;
		}
		jobq_tree_remove(&type, elements, &tree, first);
		model_remove(first);
	}

	report(steps_right && jobq_tree_is_empty(&tree),
		   "every step agrees with a sorted array", seed);
	report(walks_right, "walks in order over all members", seed);
	report(depth_right, "depth stays logarithmic", seed);
}

/* Keys in ascending or descending order must not make a list of it. */
static void
test_monotone(bool ascending)
{
	JobqTree	tree;

	clear_model();
	jobq_tree_init(&tree);
	for (int i = 0; i < MAX_ELEMENTS; i++)
	{
		elements[i].key = ascending ? i : MAX_ELEMENTS - i;
		model_insert(i);
		jobq_tree_insert(&type, elements, &tree, i);
	}
	report(same_as_model(&tree) && depth_reasonable(tree.root), ascending ?
		   "ascending keys keep order and depth" :
		   "descending keys keep order and depth", 0);
}

static void
test_empty(void)
{
	Element		probe = {.key = 1,.id = 1};
	JobqTree	tree;

	clear_model();
	jobq_tree_init(&tree);
	report(tree.first == JOBQ_NIL && tree.last == JOBQ_NIL &&
		   jobq_tree_is_empty(&tree) &&
		   jobq_tree_after(&type, elements, &tree, &probe) == JOBQ_NIL,
		   "an empty tree has nothing", 0);

	jobq_tree_insert(&type, elements, &tree, 7);
	report(tree.root == 7 && tree.first == 7 && tree.last == 7,
		   "one element comes", 0);
	jobq_tree_remove(&type, elements, &tree, 7);
	report(jobq_tree_is_empty(&tree) && tree.first == JOBQ_NIL &&
		   tree.last == JOBQ_NIL, "one element goes", 0);
}

int
main(void)
{
	test_empty();
	test_monotone(true);
	test_monotone(false);
	for (uint64_t seed = 1; seed <= 8; seed++)
		test_random(seed);
	return done_testing();
}
