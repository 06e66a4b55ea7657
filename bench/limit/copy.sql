\copy two (payload) from pstdin
