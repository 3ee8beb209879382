"""Learning steps from the equation alone, or beside data: states that the network advances itself, the loss of what the
equation leaves over of each step, and the untrained surrogate.
"""
