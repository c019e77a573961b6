;; Drops a frame as if it were a batch.
;; ends: trapped handle index
(func (export "run") (param i32 i32) (result i32) (call $drop_batch (call $events)) (i32.const 1024))
