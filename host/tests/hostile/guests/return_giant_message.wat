;; Fails with a message of 16 MiB.
;; ends: invalid or trapped
(data (i32.const 2048) "\01\00\00\00\06\00\00\00\00\00\01\00\00\00\00\01")
(func (export "run") (param i32 i32) (result i32)
  (drop (memory.grow (i32.const 300)))
  (memory.fill (i32.const 65536) (i32.const 120) (i32.const 16777216))
  (i32.const 2048))
