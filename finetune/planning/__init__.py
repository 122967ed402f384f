"""What a recipe or a run will take, before it is started: operations, memory, time."""
