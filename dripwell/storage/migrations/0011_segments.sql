-- Segments: what their questions need.

-- Who clicked, machines apart, compares the clicks of a message by time: all of it is read in the index.
DROP INDEX click_of_message;
CREATE INDEX click_of_message ON click (message_id, wall_at) INCLUDE (number, at);
