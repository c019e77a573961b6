;; Fails with a message that is longer than its memory.
;; ends: trapped out of bounds
(data (i32.const 2048) "\01\00\00\00\06\00\00\00\00\00\00\00\ff\ff\ff\7f")
(func (export "run") (param i32 i32) (result i32) (i32.const 2048))
