
-- Everything is there: open the belt.
SELECT jobq._open_first_epoch();
