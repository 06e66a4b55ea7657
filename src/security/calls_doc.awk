# calls_doc.awk: makes the table of docs/privileges.md from calls.tsv: which
# privileges each function, procedure or view needs, any of them. Shows names
# only; what begins with _ is what views are made of.

BEGIN {
	FS = "\t"
	n = split("enqueue dequeue read manage monitor key admin", words, " ")
	head = "| call |"
	line = "|---|"
	for (i = 1; i <= n; i++) {
		head = head " " words[i] " |"
		line = line ":-:|"
	}
	print head
	print line
}

/^#/ || /^[ \t]*$/ { next }

$1 !~ /^(view )?_/ {
	name = $1
	sub(/\(.*/, "()", name)
	sub(/^view /, "", name)
	row = "| " ($1 ~ /^view / ? "view " : "") "`" name "` |"
	# an owner has all privileges on a queue, an admin has all there are
	for (i = 1; i <= n; i++)
		row = row (("," $2 ",") ~ ("," words[i] ",") || words[i] == "admin" ? " x |" : " |")
	print row
}
