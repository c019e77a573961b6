;; Wants the file system.
;; refused: imports `wasi:filesystem/types@0.2.0`
;; component
(component (import "wasi:filesystem/types@0.2.0" (instance)))
