;; Exceptions.
;; refused: exceptions
;; component
(component (core module (tag $t) (func (throw $t))))
